//! The compiled programs, embedded by `build.rs`.

/// The ELF object, or `None` where the daemon was built without one.
#[cfg(has_ebpf_object)]
pub(super) fn object() -> Option<&'static [u8]> {
    // The ELF parser reads 8-byte fields in place.
    Some(aya::include_bytes_aligned!(env!("MULTIWANS_EBPF_OBJECT")))
}

/// The ELF object, or `None` where the daemon was built without one.
#[cfg(not(has_ebpf_object))]
pub(super) fn object() -> Option<&'static [u8]> {
    None
}
