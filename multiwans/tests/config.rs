//! The golden folders: `config/valid/*.yaml` parse, `config/broken/*.yaml` do not, and what is printed
//! about each stands beside it, byte for byte.
//!
//! `UPDATE_GOLDEN=1 cargo test -p multiwans --test config` writes the expectations anew; read the diff.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::fs;
use std::path::{Path, PathBuf};

use multiwans::cli::check::summary;
use multiwans::cli::load::load;
use multiwans::config::{self, Severity};

/// The files of a golden folder in order of their names.
fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn parse(file: &Path) -> Result<config::Parsed, config::Problems> {
    config::parse(&fs::read_to_string(file).unwrap(), file.file_name().unwrap().to_str().unwrap())
}

/// Compares with the file of that extension beside the case, or writes it; `None` where they agree.
fn differs(case: &Path, extension: &str, actual: &str) -> Option<String> {
    let golden = case.with_extension(extension);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, actual).unwrap();
        return None;
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    (expected != actual)
        .then(|| format!("== {}\n-- expected:\n{expected}\n-- actual:\n{actual}", golden.display()))
}

#[test]
fn broken_files_say_exactly_what_is_wrong() {
    let cases = cases("broken");
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        match parse(case) {
            Ok(_) => wrong.push(format!("== {}: accepted", case.display())),
            Err(problems) => {
                assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
                wrong.extend(differs(case, "errors", &format!("{problems}\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn valid_files_give_exactly_this_configuration() {
    let mut wrong = Vec::new();
    for case in cases("valid") {
        match parse(&case) {
            Ok(parsed) => {
                let warnings: String = parsed.warnings.iter().map(|warning| format!("{warning}\n")).collect();
                let config = format!("{warnings}\n{}\n{:#?}\n", summary(&parsed.config), parsed.config);
                wrong.extend(differs(&case, "config", &config));
            }
            Err(problems) => wrong.push(format!("== {}: refused\n{problems}", case.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_expectation_outlives_its_case() {
    for (folder, extension) in [("broken", "errors"), ("valid", "config")] {
        let cases = cases(folder);
        for entry in fs::read_dir(cases[0].parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|found| found == extension) {
                assert!(cases.contains(&path.with_extension("yaml")), "{} has no case", path.display());
            }
        }
    }
}

#[test]
fn the_shipped_example_is_valid_and_has_the_seeds_values() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shipped = load(&root.join("config.example.yaml")).unwrap();
    assert_eq!(shipped.warnings, []);
    let seed = parse(&cases("valid").into_iter().find(|case| case.ends_with("seed-example.yaml")).unwrap());
    assert_eq!(shipped.config, seed.unwrap().config);
}
