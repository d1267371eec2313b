//! The initial ramdisk: this machine's tools and their libraries, the kernel's network modules, the
//! daemon and the tests.

use super::kernel::Kernel;
use crate::command::{cargo, find_program, output};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests and `init.sh` call.
const PROGRAMS: [&str; 13] = [
    "sh",
    "ip",
    "tc",
    "bpftool",
    "conntrack",
    "iptables",
    "iptables-save",
    "iptables-restore",
    "nft",
    "modprobe",
    "ethtool",
    "nsenter",
    "busybox",
];

/// Modules that go along: directories and beginnings of names, below the kernel's own.
const MODULES: [&str; 11] = [
    "net",
    "lib",
    "crypto",
    "arch/x86/crypto",
    "drivers/net/veth",
    "drivers/net/tun",
    "drivers/net/dummy",
    "drivers/net/ppp",
    "drivers/net/wireguard",
    "drivers/net/bonding",
    "drivers/net/macvlan",
];

/// Where iptables keeps its extensions.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// The first process of the machine.
const INIT: &str = include_str!("init.sh");

/// Makes the ramdisk that runs these tests; returns where it is.
pub(crate) fn build(kernel: &Kernel, tests: &[String]) -> Result<PathBuf> {
    let root = kernel.directory.join("root");
    fs::remove_dir_all(&root).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    for directory in
        ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "run", "tmp"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    // Debian's /bin is /usr/bin.
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    modules(kernel, &root)?;
    for program in PROGRAMS {
        let path = find_program(program).with_context(|| format!("{program} is not on this machine"))?;
        let real = fs::canonicalize(&path)?;
        copy_with_libraries(&real, &inside(&root, &real))?;
        let name = root.join("usr/sbin").join(program);
        if !name.exists() {
            symlink(&real, name)?;
        }
    }
    for extension in fs::read_dir(XTABLES).with_context(|| format!("cannot list {XTABLES}"))? {
        let extension = extension?.path();
        copy_with_libraries(&extension, &inside(&root, &extension))?;
    }
    copy_with_libraries(&workspace::target().join("debug/multiwans"), &root.join("tests/multiwans"))?;
    for (name, path) in programs_of_tests(tests)? {
        copy_with_libraries(&path, &root.join("tests/deps").join(name))?;
    }
    fs::write(root.join("tests/list"), tests.join("\n") + "\n")?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let ramdisk = kernel.directory.join("ramdisk");
    let pack = format!("find . | cpio --quiet -o -H newc > {}", ramdisk.display());
    quiet(Command::new("sh").args(["-c", &pack]).current_dir(&root))?;
    Ok(ramdisk)
}

fn modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let release = kernel.modules.file_name().context("a kernel without a release")?;
    let target = root.join("lib/modules").join(release);
    for name in MODULES {
        let (directory, start) = name.rsplit_once('/').unwrap_or(("", name));
        let target = target.join("kernel").join(directory);
        fs::create_dir_all(&target)?;
        for entry in fs::read_dir(kernel.modules.join("kernel").join(directory))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(start) {
                quiet(Command::new("cp").arg("-a").arg(entry.path()).arg(&target))?;
            }
        }
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        fs::copy(kernel.modules.join(name), target.join(name))?;
    }
    // Newer kernels' modules are packed.
    quiet(Command::new("find").arg(&target).args(["-name", "*.xz", "-exec", "xz", "-d", "{}", "+"]))?;
    let depmod = find_program("depmod").context("depmod is not on this machine")?;
    quiet(Command::new(depmod).arg("-b").arg(root).arg(release))
}

/// The executables of the named tests, compiled.
fn programs_of_tests(tests: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let compiled = cargo().args(["test", "--workspace", "--no-run", "--color=never"]).output()?;
    let said = String::from_utf8_lossy(&compiled.stderr);
    if !compiled.status.success() {
        bail!("the tests do not compile:\n{said}");
    }
    let mut programs = Vec::new();
    let names: BTreeSet<&str> = tests.iter().filter_map(|test| test.split(' ').next()).collect();
    for name in names {
        // "  Executable tests/steering.rs (target/debug/deps/steering-0123456789abcdef)"
        let path = said
            .lines()
            .filter_map(|line| {
                line.trim().strip_prefix("Executable tests/")?.strip_suffix(')')?.split_once(" (")
            })
            .map(|(_, path)| workspace::root().join(path))
            .find(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
            });
        programs.push((name.to_owned(), path.with_context(|| format!("there is no test program {name}"))?));
    }
    Ok(programs)
}

/// Runs a command whose success is nothing to talk about.
fn quiet(command: &mut Command) -> Result<()> {
    output(command).with_context(|| format!("`{command:?}` failed")).map(drop)
}

/// Without debug information, which is most of a program.
fn copy_with_libraries(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let stripped = Command::new("objcopy").arg("--strip-debug").arg(from).arg(to).status()?;
    if !stripped.success() {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let Some(libraries) = output(Command::new("ldd").arg(from)) else { return Ok(()) };
    let root = to.ancestors().find(|ancestor| ancestor.ends_with("root")).unwrap_or(to);
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let library = Path::new(library);
        let copy = inside(root, library);
        if !copy.exists() {
            fs::create_dir_all(copy.parent().unwrap_or(&copy))?;
            fs::copy(library, &copy).with_context(|| format!("cannot copy {}", library.display()))?;
        }
    }
    Ok(())
}

/// This machine's path, in the ramdisk.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
