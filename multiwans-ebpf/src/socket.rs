//! A socket that is about to connect or to send, and the mark we may have put on it.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext, Global,
    btf_maps::SkStorage,
    helpers::generated::{bpf_get_netns_cookie, bpf_setsockopt},
    macros::btf_map,
    programs::sock_addr::SockAddrContext,
};

/// The daemon's network namespace (`SO_NETNS_COOKIE`), set when the programs are loaded. Programs of a
/// cgroup see every process below it, containers with a network of their own too. Unlike any constant of
/// the programs, see `mark.rs`.
#[unsafe(no_mangle)]
static NETNS_COOKIE: Global<u64> = Global::new(0x6d77_6e65_7473_6e73);

/// The mark that we put on a socket, by which it is told from one that the application chose.
///
/// Key: the socket. Value: the mark. Writer and reader: output. Kept with the socket and freed with it:
/// no capacity, 4 bytes and the kernel's 64 or so for each socket we marked.
#[btf_map]
static MW_SOCKET_MARKS: SkStorage<u32> = SkStorage::new();

/// `SOL_SOCKET` and `SO_MARK` (asm-generic/socket.h).
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// What of a socket decides whether we may choose for it.
#[derive(Clone, Copy)]
pub struct Socket {
    /// Bound to an address or to a device, or connected.
    pub placed: bool,
    /// `SO_MARK`, all bits.
    pub mark: u32,
    /// Its port, host byte order; 0: none yet.
    pub port: u16,
}

impl Socket {
    /// The socket of a call; `None` where it is of another network namespace.
    #[inline(always)]
    pub fn of(ctx: &SockAddrContext) -> Option<Self> {
        // SAFETY: the context is the kernel's; the helper only reads it.
        if unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } != NETNS_COOKIE.load() {
            return None;
        }
        // SAFETY: the kernel sets `sk` for all the calls that our programs are attached to, and the
        // verifier checks each field that is read.
        unsafe {
            let sock = (*ctx.sock_addr).__bindgen_anon_1.sk;
            Some(Self {
                placed: (*sock).bound_dev_if != 0 || (*sock).src_ip4 != 0,
                mark: (*sock).mark,
                port: (*sock).src_port as u16,
            })
        }
    }

    /// Whether its mark is none, or one of ours: a socket that was connected elsewhere before.
    #[inline(always)]
    pub fn is_free(&self, ctx: &SockAddrContext) -> bool {
        if self.mark == 0 {
            return true;
        }
        // SAFETY: a null pointer or an element that the kernel keeps as long as the socket, which is in
        // use by the call.
        match unsafe { MW_SOCKET_MARKS.get_ptr_mut(ctx).as_ref() } {
            Some(ours) => *ours == self.mark,
            None => false,
        }
    }

    /// Puts a mark on it; 0 takes ours off. Returns whether it has it now.
    #[inline(always)]
    pub fn set_mark(&self, ctx: &SockAddrContext, mark: u32) -> bool {
        if mark == self.mark {
            return true;
        }
        let mut value = mark;
        // SAFETY: as above.
        let known = unsafe { MW_SOCKET_MARKS.get_or_insert_ptr_mut(ctx, Some(&mut value)).as_mut() };
        // Without its memory a mark of ours would pass for the application's at the next connect, and
        // keep the socket on a WAN that may be dead by then.
        let Some(known) = known else { return false };
        *known = mark;
        let size = size_of::<u32>() as i32;
        // SAFETY: the helper reads four bytes of `value`, which outlives the call.
        unsafe {
            bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_MARK, (&raw mut value).cast::<c_void>(), size) == 0
        }
    }
}
