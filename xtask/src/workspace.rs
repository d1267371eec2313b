//! Where things are in the workspace.

use std::path::{Path, PathBuf};

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    // xtask is run by cargo in the checkout that compiled it, one level below the root.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's output directory. Fixed: `multiwans/build.rs` looks for the packet programs below it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The crate of the packet programs, which is a workspace of its own.
pub(crate) fn ebpf_crate() -> PathBuf {
    root().join("multiwans-ebpf")
}

/// The object that the daemon embeds.
pub(crate) fn ebpf_object() -> PathBuf {
    target().join("multiwans-ebpf.o")
}
