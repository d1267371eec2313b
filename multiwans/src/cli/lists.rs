//! Reads the lists of prefixes that a configuration names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use ipnet::Ipv4Net;

use crate::config::{Config, ListFile, Parsed, Place, Problem, Problems, read_list};

/// Of a list's text, packed or not: eight million prefixes. Whatever is larger is none, and a packed file of a
/// few kilobytes can hold terabytes.
const MAX_BYTES: u64 = 128 * 1024 * 1024;
/// How a gzip file begins (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The lists as they were last read without an error, by file.
#[derive(Debug, Default)]
pub struct Lists {
    good: BTreeMap<PathBuf, Arc<[Ipv4Net]>>,
}

impl Lists {
    /// Reads the lists of a configuration whose file is in `folder`, each file once, and puts them into it;
    /// what is odd about them goes to its warnings. A list that fails keeps what it had when it was last read.
    ///
    /// # Errors
    /// Every problem of the lists, where one of them was never read.
    pub(super) fn read(&mut self, parsed: &mut Parsed, folder: &Path) -> Result<(), Problems> {
        let (mut kept, mut fatal) = (Vec::new(), Vec::new());
        let mut read = BTreeMap::new();
        for (path, place) in &parsed.lists {
            let file = folder.join(path);
            if read.contains_key(&file) {
                continue;
            }
            match read_one(&file, place) {
                Ok((nets, warnings)) => {
                    parsed.warnings.extend(warnings);
                    // One that did not change stays the same piece of memory: who compares sees it at once.
                    let same = self.good.get(&file).filter(|before| ***before == *nets).map(Arc::clone);
                    read.insert(file, same.unwrap_or_else(|| nets.into()));
                }
                Err(problems) => match self.good.get(&file) {
                    Some(nets) => {
                        kept.extend(problems);
                        read.insert(file, Arc::clone(nets));
                    }
                    None => fatal.extend(problems),
                },
            }
        }
        if !fatal.is_empty() {
            fatal.extend(kept);
            return Err(Problems::new(fatal));
        }
        for list in files_of(&mut parsed.config) {
            if let Some(nets) = read.get(&folder.join(&list.path)) {
                list.nets = Arc::clone(nets);
            }
        }
        self.good = read;
        parsed.kept = kept;
        Ok(())
    }
}

fn files_of(config: &mut Config) -> impl Iterator<Item = &mut ListFile> {
    let filters = config.wans.iter_mut().flat_map(|wan| &mut wan.filters);
    filters.flat_map(|filter| filter.src_files.iter_mut().chain(&mut filter.dst_files))
}

/// Its prefixes, and what is odd about them.
fn read_one(file: &Path, place: &Place) -> Result<(Vec<Ipv4Net>, Vec<Problem>), Vec<Problem>> {
    let text = read_text(file).map_err(|rule| vec![place.must_be(&rule)])?;
    let list = read_list(&text, &file.display().to_string())?;
    let mut warnings = list.warnings;
    if list.nets.is_empty() {
        warnings.push(place.warning("has no prefix: no address matches it"));
    }
    Ok((list.nets, warnings))
}

/// The text, unpacked where it is packed, or what the file must be.
fn read_text(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("a file that can be read: {error}");
    // A pipe would be waited for, a device may never end.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err("a file, no folder, pipe or device".to_owned());
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.by_ref().take(2).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes == GZIP {
        let packed = bytes.as_slice().chain(file);
        let unpacked = bounded(MultiGzDecoder::new(packed), Vec::new());
        return unpacked?.map_err(|error| format!("a whole gzip file: {error}"));
    }
    bounded(file, bytes)?.map_err(unreadable)
}

/// The rest of a text that is no longer than it may be.
fn bounded(from: impl Read, mut text: Vec<u8>) -> Result<io::Result<Vec<u8>>, String> {
    match from.take(MAX_BYTES + 1).read_to_end(&mut text) {
        Ok(_) if text.len() as u64 > MAX_BYTES => {
            Err(format!("a list of at most {} MiB, unpacked", MAX_BYTES >> 20))
        }
        result => Ok(result.map(|_| text)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::config::parse;

    /// A configuration whose second WAN has one filter for each of these, to `dstFiles`.
    fn parsed(files: &[&str]) -> Parsed {
        let filters = files.iter().zip(1..).map(|(file, number)| {
            format!(
                "      - {{description: f{number}, chainMangle: PREROUTING, protocol: all, dstFiles: [{file}]}}\n"
            )
        });
        let example = include_str!("../../../config.example.yaml");
        let (head, _) = example.split_once("    filters:\n      - description: \"POP/SMTP\"").unwrap();
        parse(&format!("{head}    filters:\n{}", filters.collect::<String>()), "c.yaml").unwrap()
    }

    fn nets(parsed: &Parsed) -> Vec<Vec<String>> {
        let filters = parsed.config.wans.iter().flat_map(|wan| &wan.filters);
        let files = filters.flat_map(|filter| &filter.dst_files);
        files.map(|file| file.nets.iter().map(ToString::to_string).collect()).collect()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    fn texts<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<String> {
        problems.into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn plain_and_packed_files_are_read_once_and_shared() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "10.0.0.0/8\n").unwrap();
        // Two members, as `cat a.gz b.gz` makes; the name says nothing.
        let packed = [gzip(b"192.0.2.0/24\n"), gzip(b"198.51.100.7\n")].concat();
        fs::write(dir.path().join("packed.txt"), packed).unwrap();
        let mut parsed = parsed(&["plain", "packed.txt", "plain"]);
        Lists::default().read(&mut parsed, dir.path()).unwrap();
        let packed = vec!["192.0.2.0/24".to_owned(), "198.51.100.7/32".to_owned()];
        assert_eq!(nets(&parsed), [vec!["10.0.0.0/8".to_owned()], packed, vec!["10.0.0.0/8".to_owned()]]);
        let lists: Vec<_> = files_of(&mut parsed.config).map(|file| Arc::clone(&file.nets)).collect();
        assert!(Arc::ptr_eq(&lists[0], &lists[2]));
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bad"), "10.0.0.0/8\nnonsense\n").unwrap();
        let half = gzip(&b"10.0.0.0/8\n".repeat(100));
        fs::write(dir.path().join("half"), &half[..half.len() / 2]).unwrap();
        fs::write(dir.path().join("bomb"), gzip(&vec![b'\n'; 130 << 20])).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let names = ["none", "bad", "half", "bomb", "dir", "fifo"];
        let problems = texts(&Lists::default().read(&mut parsed(&names), dir.path()).unwrap_err());
        let file = "must be a file, no folder, pipe or device";
        let expected = [
            ("none", "must be a file that can be read: No such file or directory (os error 2)"),
            ("half", "must be a whole gzip file: "),
            ("bomb", "must be a list of at most 128 MiB, unpacked"),
            ("dir", file),
            ("fifo", file),
        ];
        assert_eq!(problems.len(), names.len(), "{problems:#?}");
        for (name, rule) in expected {
            let number = names.iter().position(|own| *own == name).unwrap();
            let start = format!("WANS[1].filters[{number}].dstFiles[0] ({name}) {rule}");
            let problem = &problems[number];
            assert!(problem.starts_with("c.yaml:") && problem.contains(&start), "{problem}");
            assert!(problem.ends_with(&format!(" [WAN \"WAN2\", filter \"f{}\"]", number + 1)), "{problem}");
        }
        let bad = dir.path().join("bad");
        assert!(problems[1].starts_with(&format!("{}:2:1: prefix (nonsense) must be", bad.display())));
    }

    #[test]
    fn an_empty_list_matches_nothing_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("empty"), "# nothing yet\n").unwrap();
        let mut parsed = parsed(&["empty"]);
        let before = parsed.warnings.len();
        Lists::default().read(&mut parsed, dir.path()).unwrap();
        let told = texts(&parsed.warnings[before..]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("warning: WANS[1].filters[0].dstFiles[0] (empty) has no prefix"),
            "{told:?}"
        );
        let filter = &parsed.config.wans[1].filters[0];
        assert_eq!(filter.destinations(), Some(vec![&[] as &[Ipv4Net], &[]]), "it must not match everything");
    }

    #[test]
    fn a_list_that_fails_later_keeps_what_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "10.0.0.0/8\n").unwrap();
        fs::write(&two, "192.0.2.0/24\n").unwrap();
        let mut lists = Lists::default();
        let both = ["one", "two"];
        lists.read(&mut parsed(&both), dir.path()).unwrap();

        for broken in ["10.0.0.0/8\n10.0.0.0/33\n", ""] {
            match broken {
                "" => fs::remove_file(&one).unwrap(),
                text => fs::write(&one, text).unwrap(),
            }
            fs::write(&two, "203.0.113.0/24\n").unwrap();
            let mut again = parsed(&both);
            lists.read(&mut again, dir.path()).unwrap();
            let kept = texts(&again.kept);
            assert_eq!(kept.len(), 1, "{kept:?}");
            assert!(kept[0].contains("/one:2:1: ") || kept[0].contains("(one) must be a file"), "{kept:?}");
            assert_eq!(nets(&again), [vec!["10.0.0.0/8".to_owned()], vec!["203.0.113.0/24".to_owned()]]);
        }

        // A list that is new has nothing to keep.
        assert!(lists.read(&mut parsed(&["one", "three"]), dir.path()).is_err());
        fs::write(&one, "198.51.100.0/24\n").unwrap();
        let mut mended = parsed(&both);
        lists.read(&mut mended, dir.path()).unwrap();
        assert_eq!(mended.kept, []);
        let mut again = parsed(&both);
        lists.read(&mut again, dir.path()).unwrap();
        let same =
            |parsed: &mut Parsed| files_of(&mut parsed.config).map(|file| Arc::clone(&file.nets)).next();
        assert!(Arc::ptr_eq(&same(&mut mended).unwrap(), &same(&mut again).unwrap()));
        assert_eq!(nets(&mended)[0], ["198.51.100.0/24"]);
    }
}
