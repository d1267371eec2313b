//! The daemon against iptables: the same random policies, the same packets, and whoever sits at the ISPs
//! tells which WAN each packet took.

use anyhow::{Context, Result};
use fastrand::Rng;
use multiwans_tests::differential::{Packet, Policy, Reference, wans_taken};
use multiwans_tests::{Daemon, Lab};
use std::env;
use std::time::Duration;

const WANS: u8 = 5;

/// Rounds of another policy each, and packets in each of them: a hundred thousand together.
const ROUNDS: u64 = 20;
const PACKETS: usize = 5_000;

/// Repeats a run that failed: the seed that it printed.
const SEED_VARIABLE: &str = "MULTIWANS_TEST_SEED";

#[test]
fn not_one_packet_in_a_hundred_thousand_differs_from_iptables() -> Result<()> {
    let seed = match env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED_VARIABLE} ({seed}) must be a number"))?,
        Err(_) => fastrand::u64(..),
    };
    println!("{SEED_VARIABLE}={seed}");
    let lab = Lab::builder().wans(WANS).rp_filter(0).build()?;
    let reference = Reference::build(WANS)?;
    // WANs that took anything: a policy that steers nothing would find no difference either.
    let mut taken = [0; WANS as usize];
    for round in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed.wrapping_add(round));
        let policy = Policy::random(&mut rng, WANS);
        let packets: Vec<Packet> = (0..PACKETS).map(|_| Packet::random(&mut rng)).collect();
        let down = *[None, None, Some(1), Some(3)].get(rng.usize(..4)).context("one of four")?;
        let default = if down == Some(1) { 2 } else { 1 };

        reference.steer(&policy, default, down)?;
        let wanted = wans_taken(reference.lab(), &packets)?;
        let got = steered_by_daemon(&lab, &policy, default, down, &packets)?;

        for (number, (packet, (wanted, got))) in packets.iter().zip(wanted.iter().zip(&got)).enumerate() {
            assert_eq!(
                got, wanted,
                "seed {seed}, round {round}, packet {number}: WAN {got} instead of {wanted}, with the default \
                 {default} and {down:?} down: {packet:?}\n{policy:?}"
            );
            taken[usize::from(*got) - 1] += 1;
        }
    }
    println!("packets by WAN: {taken:?}");
    assert!(taken.iter().all(|packets| *packets > PACKETS / 20), "{taken:?}");
    Ok(())
}

fn steered_by_daemon(
    lab: &Lab,
    policy: &Policy,
    default: u8,
    down: Option<u8>,
    packets: &[Packet],
) -> Result<Vec<u8>> {
    if let Some(k) = down {
        lab.pull_cable(k)?;
    }
    // Not at debug level: a line for each packet would take longer than the packet.
    let mut daemon = Daemon::start_at(lab, &policy.config(lab), "info")?;
    daemon.wait_status("the default", Duration::from_secs(10), |status| {
        status.defaults_to(default) && (1..=WANS).all(|k| status.is_on(k) != (Some(k) == down))
    })?;
    let taken = wans_taken(lab, packets)?;
    daemon.terminate()?;
    if let Some(k) = down {
        lab.plug_cable(k)?;
    }
    Ok(taken)
}
