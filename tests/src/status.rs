//! What `multiwans status --json` says.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;

/// A link's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Carries traffic.
    On,
    /// Does not.
    Off,
    /// Not decided yet; `UNKNOW` on the outside.
    Unknown,
}

/// The state of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The description of the WAN that unmatched traffic takes; `None` when all are down.
    pub default: Option<String>,
    /// In the configuration's order.
    pub wans: Vec<Wan>,
}

/// The state of one WAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wan {
    /// As configured.
    pub description: String,
    /// As configured.
    pub iface: String,
    /// As configured.
    pub mark: u64,
    /// Now.
    pub state: State,
    /// Why it is in this state.
    pub reason: String,
    /// Who answered the last probe.
    pub last_target: Option<Ipv4Addr>,
    /// Since when, in whatever form the daemon gives.
    pub since: Value,
}

impl Status {
    /// Reads the JSON text.
    ///
    /// # Errors
    /// When it is not of the documented form.
    pub fn parse(json: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(json).with_context(|| format!("status is not JSON: {json:?}"))?;
        let default = match value.get("default") {
            Some(Value::Null) => None,
            Some(Value::String(description)) => Some(description.clone()),
            other => bail!("status: default ({other:?}) must be a description or null"),
        };
        let wans = value.get("wans").and_then(Value::as_array).context("status: no list of WANs")?;
        Ok(Self { default, wans: wans.iter().map(Wan::parse).collect::<Result<_>>()? })
    }

    /// The WAN of this number in a [`Config`](crate::Config).
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn wan(&self, k: u8) -> &Wan {
        let description = format!("WAN{k}");
        let found = self.wans.iter().find(|wan| wan.description == description);
        found.unwrap_or_else(|| panic!("no {description} in {self:?}"))
    }

    /// True when the WAN of this number is on.
    #[must_use]
    pub fn is_on(&self, k: u8) -> bool {
        self.wan(k).state == State::On
    }

    /// True when the WAN of this number is off.
    #[must_use]
    pub fn is_off(&self, k: u8) -> bool {
        self.wan(k).state == State::Off
    }

    /// True when the WAN of this number is the default.
    #[must_use]
    pub fn defaults_to(&self, k: u8) -> bool {
        self.default.as_ref() == Some(&self.wan(k).description)
    }
}

impl Wan {
    fn parse(value: &Value) -> Result<Self> {
        let text = |key: &str| {
            let found = value.get(key).and_then(Value::as_str).map(str::to_owned);
            found.with_context(|| format!("status: a WAN's {key} must be a text: {value}"))
        };
        let state = match text("state")?.as_str() {
            "ON" => State::On,
            "OFF" => State::Off,
            "UNKNOW" => State::Unknown,
            other => bail!("status: state ({other}) must be ON, OFF or UNKNOW"),
        };
        Ok(Self {
            description: text("description")?,
            iface: text("iface")?,
            mark: value
                .get("mark")
                .and_then(Value::as_u64)
                .context("status: a WAN's mark must be a number")?,
            state,
            last_target: text("last_target").ok().map(|address| address.parse()).transpose()?,
            // Null while nothing is known against the link.
            reason: text("reason").unwrap_or_default(),
            since: value.get("since").context("status: a WAN has no since")?.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_read() {
        let json = r#"{"default": "WAN1", "wans": [
            {"description": "WAN1", "iface": "eth1", "mark": 1, "state": "ON", "reason": "", "since": 1},
            {"description": "WAN2", "iface": "eth2", "mark": 2, "state": "UNKNOW", "reason": "x", "since": 1}]}"#;
        let status = Status::parse(json).unwrap();
        assert!(status.is_on(1) && status.defaults_to(1) && !status.defaults_to(2));
        assert!(!status.is_on(2) && !status.is_off(2));
        assert_eq!(Status::parse(r#"{"default": null, "wans": []}"#).unwrap().default, None);
    }

    #[test]
    fn another_form_is_an_error() {
        for json in
            ["", "{}", r#"{"default": 1, "wans": []}"#, r#"{"default": null, "wans": [{"state": "ON"}]}"#]
        {
            assert!(Status::parse(json).is_err(), "{json}");
        }
    }
}
