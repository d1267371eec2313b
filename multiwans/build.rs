//! Embeds the eBPF object that `cargo xtask build-ebpf` leaves under `target/`.
//!
//! Without one the crate still compiles and its unit tests run; the daemon then says at start that it
//! has no data path and which command builds it.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_ebpf_object)");
    // Cargo sets it for every build script.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let object = manifest.parent().unwrap_or(Path::new(".")).join("target/multiwans-ebpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    if object.is_file() {
        println!("cargo::rustc-cfg=has_ebpf_object");
        println!("cargo::rustc-env=MULTIWANS_EBPF_OBJECT={}", object.display());
    }
}
