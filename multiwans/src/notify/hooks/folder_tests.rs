use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

/// A folder of hooks that is root's alone, for `eth1`.
struct Scripts {
    dir: tempfile::TempDir,
}

impl Scripts {
    fn new() -> Self {
        let scripts = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(scripts.path("eth1/up")).unwrap();
        scripts.mode("eth1/up", 0o755).mode("eth1", 0o755).mode("", 0o755);
        scripts
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn mode(&self, below: &str, mode: u32) -> &Self {
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn script(&self, below: &str) -> &Self {
        fs::write(self.path(below), "#!/bin/sh\n").unwrap();
        self.mode(below, 0o755)
    }

    /// The names of the hooks, and what is refused.
    fn found(&self, state: LinkState) -> (Vec<String>, Vec<String>) {
        let found = find(self.dir.path(), &IfName::new("eth1").unwrap(), state);
        (found.hooks.into_iter().map(|hook| hook.name).collect(), found.refused)
    }

    /// The one hook is refused for this reason.
    fn refused(&self, reason: &str) {
        let (hooks, refused) = self.found(LinkState::On);
        assert_eq!(hooks, Vec::<String>::new());
        assert!(refused.len() == 1 && refused[0].contains(reason), "{refused:?}");
    }
}

#[test]
fn executable_files_are_hooks_in_version_order() {
    let scripts = Scripts::new();
    for name in ["10-ten", "9-nine.sh", ".hidden", "1 with space"] {
        scripts.script(&format!("eth1/up/{name}"));
    }
    fs::write(scripts.path("eth1/up/README"), "no program").unwrap();
    fs::create_dir(scripts.path("eth1/up/lib")).unwrap();
    scripts.script("eth1/up/lib/inner");
    let (hooks, refused) = scripts.found(LinkState::On);
    assert_eq!(hooks, ["eth1/up/.hidden", "eth1/up/1 with space", "eth1/up/9-nine.sh", "eth1/up/10-ten"]);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(scripts.found(LinkState::Off), (Vec::new(), Vec::new()), "a folder need not be there");
}

#[test]
fn what_others_can_write_to_is_refused() {
    for mode in [0o757, 0o775] {
        let scripts = Scripts::new();
        scripts.script("eth1/up/hook").mode("eth1/up/hook", mode);
        scripts.refused("up/hook must not be writable by others than root");
    }
    // Sticky or not: a new file of somebody else's would be run.
    for (folder, mode) in
        [("eth1/up", 0o777), ("eth1/up", 0o1777), ("eth1", 0o1777), ("", 0o1777), ("", 0o775)]
    {
        let scripts = Scripts::new();
        scripts.script("eth1/up/hook").mode(folder, mode);
        scripts.refused("must not be writable by others than root");
    }
}

#[test]
fn what_is_not_roots_is_refused() {
    for path in ["eth1/up/hook", "eth1/up", "eth1", ""] {
        let scripts = Scripts::new();
        scripts.script("eth1/up/hook");
        chown(scripts.path(path), Some(65_534), None).unwrap();
        scripts.refused("must be owned by root, not by user 65534");
    }
}

#[test]
fn a_link_is_what_it_points_to() {
    let scripts = Scripts::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    fs::write(&target, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&target, scripts.path("eth1/up/link")).unwrap();
    let found = find(scripts.dir.path(), &IfName::new("eth1").unwrap(), LinkState::On);
    let hook = Hook { name: "eth1/up/link".into(), program: target.canonicalize().unwrap() };
    assert_eq!(found.hooks, [hook]);

    // In a directory of somebody else's it can be exchanged at any time.
    chown(elsewhere.path(), Some(65_534), None).unwrap();
    scripts.refused("must be owned by root, not by user 65534");
    chown(elsewhere.path(), Some(0), None).unwrap();
    chown(&target, Some(65_534), None).unwrap();
    scripts.refused("target must be owned by root");

    fs::remove_file(&target).unwrap();
    scripts.refused("hook eth1/up/link is not run: it is a link to what cannot be found");
}

#[test]
fn a_link_for_a_folder_is_followed_with_the_same_care() {
    let scripts = Scripts::new();
    scripts.script("eth1/up/hook");
    symlink("up", scripts.path("eth1/down")).unwrap();
    assert_eq!(scripts.found(LinkState::Off).0, ["eth1/down/hook"]);
    let (_, refused) = {
        scripts.mode("eth1/up", 0o777);
        scripts.found(LinkState::Off)
    };
    assert!(refused[0].contains("must not be writable by others"), "{refused:?}");
}
