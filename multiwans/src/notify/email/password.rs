//! Where the password comes from.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::server::SetupError;
use crate::config::{PasswordSource, Secret};

/// The name of the systemd credential (`LoadCredential=email-password:…`).
const CREDENTIAL: &str = "email-password";
/// Where systemd says the credentials are (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A password is a line; whatever is larger is another file, given by mistake.
const MAX_BYTES: u64 = 4096;

/// Fetches the password, and says what is odd about where it was.
///
/// # Errors
/// When there is none where it should be.
pub(super) fn fetch(source: &PasswordSource) -> Result<(Secret, Option<String>), SetupError> {
    match source {
        PasswordSource::Inline(secret) => Ok((secret.clone(), None)),
        PasswordSource::File(path) => {
            let secret = read(path, "email.passwordFile")?;
            Ok((secret, open_to_others(path)))
        }
        PasswordSource::Credential => {
            let path = credential(std::env::var_os(CREDENTIALS_DIRECTORY)).ok_or(SetupError::NoPassword)?;
            Ok((read(&path, "the systemd credential email-password")?, None))
        }
    }
}

/// The credential's file, where systemd handed one over.
fn credential(directory: Option<OsString>) -> Option<PathBuf> {
    let path = Path::new(&directory?).join(CREDENTIAL);
    path.exists().then_some(path)
}

fn read(path: &Path, what: &'static str) -> Result<Secret, SetupError> {
    let unreadable = |source| SetupError::Unreadable { what, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    let too_long = u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES);
    let text = String::from_utf8(bytes).ok().filter(|_| !too_long);
    let line = text.as_deref().map(|text| text.strip_suffix('\n').unwrap_or(text));
    let line = line.map(|line| line.strip_suffix('\r').unwrap_or(line));
    match line.filter(|line| !line.is_empty() && !line.contains('\n')) {
        Some(line) => Ok(Secret::new(line)),
        None => Err(SetupError::NotAPassword { what, path: path.to_owned() }),
    }
}

/// A warning where others than the owner may read the file.
fn open_to_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    let open = mode & 0o044 != 0;
    open.then(|| {
        format!(
            "email.passwordFile ({}) must be readable by its owner only, its mode is {mode:04o}",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CREDENTIAL);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_holds_one_line() {
        for content in ["p4ss wörd", "p4ss wörd\n", "p4ss wörd\r\n"] {
            let (_dir, path) = file(content.as_bytes(), 0o600);
            let (secret, warning) = fetch(&PasswordSource::File(path)).unwrap();
            assert_eq!((secret.expose(), warning), ("p4ss wörd", None));
        }
        for content in [&b""[..], b"\n", b"hunter2\nhunter3\n", b"\xff", &[b'a'; 5000]] {
            let (_dir, path) = file(content, 0o600);
            let error = fetch(&PasswordSource::File(path.clone())).unwrap_err().to_string();
            let expected =
                format!("email.passwordFile ({}) must hold one line with the password", path.display());
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_used_with_a_warning() {
        for (mode, odd) in [(0o400, false), (0o600, false), (0o640, true), (0o604, true), (0o644, true)] {
            let (_dir, path) = file(b"hunter2", mode);
            let (_, warning) = fetch(&PasswordSource::File(path)).unwrap();
            assert_eq!(warning.is_some(), odd, "{mode:o}: {warning:?}");
            assert!(warning.is_none_or(|text| !text.contains("hunter2")));
        }
    }

    #[test]
    fn a_missing_file_is_told_with_its_key() {
        let error = fetch(&PasswordSource::File("/nonexistent/pw".into())).unwrap_err();
        let expected = "email.passwordFile (/nonexistent/pw) must be readable: No such file or directory";
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn a_credential_is_looked_for_where_systemd_says() {
        let (dir, path) = file(b"hunter2", 0o400);
        assert_eq!(credential(Some(dir.path().into())), Some(path));
        assert_eq!(credential(Some("/nonexistent".into())), None);
        assert_eq!(credential(None), None);
    }
}
