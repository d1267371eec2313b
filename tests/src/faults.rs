//! What goes wrong with links, and being put right.

use crate::Lab;
use crate::setup;
use crate::topology::{Ns, gateway, wan_iface, wan_ip};
use anyhow::Result;

impl Lab {
    /// The ISP swallows everything that would pass through it; its gateway still answers, and the
    /// carrier is up.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn blackhole(&self, k: u8) -> Result<()> {
        self.sysctl(Ns::Isp(k), "ipv4/ip_forward", "0")
    }

    /// The ISP's gateway takes no packet any more; the carrier is up.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn kill_gateway(&self, k: u8) -> Result<()> {
        self.sh(Ns::Isp(k), "iptables -t raw -A PREROUTING -i cust -j DROP").map(drop)
    }

    /// Ends [`blackhole`](Self::blackhole) and [`kill_gateway`](Self::kill_gateway).
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn heal(&self, k: u8) -> Result<()> {
        self.sysctl(Ns::Isp(k), "ipv4/ip_forward", "1")?;
        self.sh(Ns::Isp(k), "iptables -t raw -F PREROUTING").map(drop)
    }

    /// The router's interface loses its carrier.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn pull_cable(&self, k: u8) -> Result<()> {
        self.sh(Ns::Isp(k), "ip link set cust down").map(drop)
    }

    /// The carrier comes back.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn plug_cable(&self, k: u8) -> Result<()> {
        self.sh(Ns::Isp(k), "ip link set cust up").map(drop)
    }

    /// The router loses its address at the ISP.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn remove_address(&self, k: u8) -> Result<()> {
        self.sh(Ns::Router, &format!("ip address del {}/24 dev {}", wan_ip(k), wan_iface(k))).map(drop)
    }

    /// The router gets its address at the ISP back.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn add_address(&self, k: u8) -> Result<()> {
        self.sh(Ns::Router, &format!("ip address add {}/24 dev {}", wan_ip(k), wan_iface(k))).map(drop)
    }

    /// The administrator takes the router's interface down; the kernel drops its routes.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn set_down(&self, k: u8) -> Result<()> {
        self.sh(Ns::Router, &format!("ip link set {} down", wan_iface(k))).map(drop)
    }

    /// The administrator takes the router's interface up again.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn set_up(&self, k: u8) -> Result<()> {
        self.sh(Ns::Router, &format!("ip link set {} up", wan_iface(k))).map(drop)
    }

    /// The router's interface ceases to exist, as an unplugged USB modem's does.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn delete_interface(&self, k: u8) -> Result<()> {
        self.sh(Ns::Router, &format!("ip link del {}", wan_iface(k))).map(drop)
    }

    /// An interface of the same name and address appears, under another index.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn create_interface(&self, k: u8) -> Result<()> {
        setup::wan_link(self, k)?;
        setup::settle(self, Ns::Isp(k))
    }

    /// Connects the second LAN, which [`second_lan_later`](crate::LabBuilder::second_lan_later) left out.
    ///
    /// # Errors
    /// When it is connected already.
    pub fn connect_second_lan(&self) -> Result<()> {
        setup::second_lan(self)?;
        setup::settle(self, Ns::Lan2)?;
        setup::settle(self, Ns::Router)
    }

    /// The number of the WAN that the router's default route leads to; `None` without one.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn default_gateway(&self) -> Result<Option<u8>> {
        let route = self.sh(Ns::Router, "ip route show default")?;
        Ok((1..=self.wans()).find(|&k| route.contains(&format!("via {} ", gateway(k)))))
    }
}
