//! Keeps the programs' view of the kernel's specific routes up to date.

use std::time::{Duration, Instant};

use crate::datapath::SpecificMap;
use crate::net::{Destinations, SpecificRoutes};

/// Of a router whose routes never rest, reading them may take a fifth of the time: the rest is four times as long. A
/// full set takes some 20 ms.
const REST: u32 = 4;

/// The shortest pause: a daemon that enters its routes one by one is read once.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Passes changes on until the daemon ends.
pub(super) async fn follow(mut routes: SpecificRoutes, mut map: SpecificMap) {
    let mut trouble = String::new();
    loop {
        let begin = Instant::now();
        let result = match routes.read(SpecificMap::CAPACITY).await {
            Ok(Destinations { own, specific }) => {
                map.replace_own(own).and_then(|()| map.replace(specific)).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(()) => trouble.clear(),
            Err(error) if error != trouble => {
                tracing::warn!(
                    "the router's unconnected datagrams may leave by a WAN instead of a route: {error}"
                );
                trouble = error;
            }
            Err(_) => {}
        }
        tokio::time::sleep((begin.elapsed() * REST).max(PAUSE_MIN)).await;
        if let Err(error) = routes.changed().await {
            tracing::warn!("changes of routes are not followed any more: {error}");
            return;
        }
    }
}
