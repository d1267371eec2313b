use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::stat::{Mode, umask};
use tempfile::TempDir;

use super::*;

fn states(first: LinkState) -> Vec<(IfName, LinkState)> {
    vec![(IfName::new("eth1").unwrap(), first), (IfName::new("ppp0").unwrap(), LinkState::Unknow)]
}

/// A directory as `/tmp` is.
fn sticky() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    dir
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn one_line_per_wan_readable_by_all() {
    let dir = sticky();
    let path = dir.path().join("status");
    let file = StatusFile::new(&path);
    file.write(&states(LinkState::On)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "eth1:ON\nppp0:UNKNOW\n");
    file.write(&states(LinkState::Off)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "eth1:OFF\nppp0:UNKNOW\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(names(dir.path()), ["status"], "nothing else is left");
    file.remove().unwrap();
    file.remove().unwrap();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn the_umask_does_not_matter() {
    let dir = sticky();
    let path = dir.path().join("status");
    // Of this thread alone: it shares its file system attributes with no other any more.
    let mode = thread::scope(|scope| {
        let odd = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            umask(Mode::from_bits_truncate(0o077));
            StatusFile::new(&path).write(&states(LinkState::On)).unwrap();
            fs::metadata(&path).unwrap().mode() & 0o7777
        });
        odd.join().unwrap()
    });
    assert_eq!(mode, 0o644);
}

#[test]
fn a_planted_link_is_replaced_and_not_followed() {
    let dir = sticky();
    let path = dir.path().join("status");
    let victim = dir.path().join("shadow");
    fs::write(&victim, "precious").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
    for target in [victim.clone(), dir.path().join("nowhere")] {
        symlink(&target, &path).unwrap();
        StatusFile::new(&path).write(&states(LinkState::On)).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(names(dir.path()), ["shadow"]);
    // Nor is one followed on the way out.
    symlink(&victim, &path).unwrap();
    StatusFile::new(&path).remove().unwrap();
    assert_eq!(names(dir.path()), ["shadow"]);
}

#[test]
fn a_file_with_other_names_keeps_its_content_under_them() {
    let dir = sticky();
    let (path, other) = (dir.path().join("status"), dir.path().join("other"));
    fs::write(&other, "precious").unwrap();
    fs::hard_link(&other, &path).unwrap();
    StatusFile::new(&path).write(&states(LinkState::On)).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
}

#[test]
fn a_reader_sees_whole_versions_only() {
    let dir = sticky();
    let path = dir.path().join("status");
    let file = StatusFile::new(&path);
    // Long enough that a write in place would be seen half done.
    let many = |state| vec![(IfName::new("eth1").unwrap(), state); 2000];
    file.write(&many(LinkState::On)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                file.write(&many(LinkState::Off)).unwrap();
                file.write(&many(LinkState::On)).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), 2000);
            let first = text.lines().next().unwrap();
            assert!(text.lines().all(|line| line == first));
        }
    });
}

#[test]
fn errors_name_the_key_and_leave_nothing_behind() {
    let dir = sticky();
    let missing = dir.path().join("no/such/status");
    let error = StatusFile::new(&missing).write(&states(LinkState::On)).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("daemon.statusFile ({}) must be in a directory that exists", missing.display())
    );

    let taken = dir.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let error = StatusFile::new(&taken).write(&states(LinkState::On)).unwrap_err().to_string();
    assert!(error.contains("could not be written") && error.contains("directory"), "{error}");
    assert!(StatusFile::new(&taken).remove().unwrap_err().to_string().contains("could not be removed"));
    assert_eq!(names(dir.path()), ["taken"]);
}
