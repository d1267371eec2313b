//! Switching an interface on.

use rtnetlink::LinkUnspec;

use super::Error;
use crate::types::IfIndex;

/// Sets `IFF_UP`, as `ip link set up` does. Needs a tokio runtime.
///
/// # Errors
/// What the kernel says.
pub async fn bring_up(index: IfIndex) -> Result<(), Error> {
    let (connection, handle, _unsolicited) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let driver = tokio::spawn(connection);
    let message = LinkUnspec::new_with_index(index.0).up().build();
    let result = handle.link().set(message).execute().await;
    driver.abort();
    result.map_err(|e| Error::refused(format!("switch on interface {index}"), std::io::Error::other(e)))
}
