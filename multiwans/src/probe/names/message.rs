//! DNS messages: the question for a name's IPv4 addresses, and what an answer says. Pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

/// The longest chain of aliases that is followed; real ones have two or three.
const ALIASES_MAX: usize = 8;

/// A question that is on its way.
#[derive(Debug, Clone)]
pub(super) struct Question {
    name: Name,
    id: u16,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name's addresses, in the server's order, and how long they hold; aliases followed.
    Addresses(Vec<Ipv4Addr>, Duration),
    /// An alias for a name that this answer says nothing of, and how long it holds.
    Alias(Name, Duration),
    /// It did not fit: ask again over TCP.
    Truncated,
    /// Not what was asked for.
    Refused(Refusal),
}

/// Why a server gives no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// NXDOMAIN.
    #[error("no such name")]
    NoName,
    /// The name is there, without an IPv4 address.
    #[error("the name has no IPv4 address")]
    NoAddress,
    /// The aliases have no end.
    #[error("the name is an alias without end")]
    Circle,
    /// SERVFAIL, REFUSED and the like.
    #[error("the server answers {0}")]
    Code(ResponseCode),
}

impl Question {
    /// Asks for a name's addresses. `id`: unpredictable, so that nobody answers who has not seen it.
    pub(super) fn new(name: Name, id: u16) -> Self {
        Self { name, id }
    }

    /// The message, without TCP's length before it. `None` where it cannot be encoded.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), RecordType::A));
        message.to_vec().ok()
    }

    /// What a message says; `None` where it is no answer to this question.
    pub(super) fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let message = Message::from_vec(bytes).ok()?;
        let header = &message.metadata;
        let is_answer = header.message_type == MessageType::Response
            && header.id == self.id
            && header.op_code == OpCode::Query;
        if !is_answer || !self.is_asked_by(&message) {
            return None;
        }
        if header.truncation {
            return Some(Answer::Truncated);
        }
        Some(match header.response_code {
            ResponseCode::NoError => self.read(&message),
            ResponseCode::NXDomain => Answer::Refused(Refusal::NoName),
            code => Answer::Refused(Refusal::Code(code)),
        })
    }

    /// Whether the message repeats this question. A server that could not even read it may leave it out.
    fn is_asked_by(&self, message: &Message) -> bool {
        match message.queries.as_slice() {
            [] => message.metadata.response_code != ResponseCode::NoError,
            [query] => {
                query.name() == &self.name
                    && query.query_type() == RecordType::A
                    && query.query_class() == DNSClass::IN
            }
            _ => false,
        }
    }

    fn read(&self, message: &Message) -> Answer {
        let mut name = &self.name;
        let mut ttl = u32::MAX;
        for _ in 0..=ALIASES_MAX {
            let of_name = || {
                message
                    .answers
                    .iter()
                    .filter(|record| record.name == *name && record.dns_class == DNSClass::IN)
            };
            let mut addresses = Vec::new();
            for record in of_name() {
                if let RData::A(address) = &record.data {
                    addresses.push(address.0);
                    ttl = ttl.min(record.ttl);
                }
            }
            let holds = Duration::from_secs(ttl.into());
            if !addresses.is_empty() {
                return Answer::Addresses(addresses, holds);
            }
            let alias = of_name().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((&target.0, record.ttl)),
                _ => None,
            });
            match alias {
                Some((target, of_alias)) => {
                    name = target;
                    ttl = ttl.min(of_alias);
                }
                None if name == &self.name => return Answer::Refused(Refusal::NoAddress),
                None => return Answer::Alias(name.clone(), holds),
            }
        }
        Answer::Refused(Refusal::Circle)
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
