use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, CNAME};

use super::*;

const ID: u16 = 0x1234;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question() -> Question {
    Question::new(name("www.example.org."), ID)
}

fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(address.into())))
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

/// A server's answer to [`question`].
fn reply(records: Vec<Record>) -> Message {
    let mut message = Message::from_vec(&question().bytes().unwrap()).unwrap().into_response();
    message.add_answers(records);
    message
}

fn read(message: &Message) -> Option<Answer> {
    question().answer(&message.to_vec().unwrap())
}

fn addresses(last: &[u8], ttl: u64) -> Option<Answer> {
    let addresses = last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last)).collect();
    Some(Answer::Addresses(addresses, Duration::from_secs(ttl)))
}

#[test]
fn a_question_asks_for_addresses_with_recursion() {
    let message = Message::from_vec(&question().bytes().unwrap()).unwrap();
    assert_eq!(message.metadata.id, ID);
    assert!(message.metadata.recursion_desired);
    assert_eq!(message.queries, [Query::query(name("www.example.org."), RecordType::A)]);
}

#[test]
fn all_addresses_hold_as_long_as_the_shortest() {
    let two = reply(vec![
        a("www.example.org.", 300, [192, 0, 2, 7]),
        a("WWW.example.ORG.", 60, [192, 0, 2, 8]),
        a("other.example.org.", 5, [192, 0, 2, 9]),
    ]);
    assert_eq!(read(&two), addresses(&[7, 8], 60));
}

#[test]
fn aliases_are_followed_in_any_order_and_shorten_the_time() {
    let chain = reply(vec![
        a("c.example.net.", 300, [192, 0, 2, 7]),
        alias("b.example.net.", 40, "c.example.net."),
        alias("www.example.org.", 600, "b.example.net."),
    ]);
    assert_eq!(read(&chain), addresses(&[7], 40));
    let open = reply(vec![alias("www.example.org.", 30, "b.example.net.")]);
    assert_eq!(read(&open), Some(Answer::Alias(name("b.example.net."), Duration::from_secs(30))));
    let circle = reply(vec![
        alias("www.example.org.", 30, "b.example.net."),
        alias("b.example.net.", 30, "www.example.org."),
    ]);
    assert_eq!(read(&circle), Some(Answer::Refused(Refusal::Circle)));
}

#[test]
fn refusals_are_told_apart() {
    assert_eq!(read(&reply(Vec::new())), Some(Answer::Refused(Refusal::NoAddress)));
    for (code, refusal) in [
        (ResponseCode::NXDomain, Refusal::NoName),
        (ResponseCode::ServFail, Refusal::Code(ResponseCode::ServFail)),
        (ResponseCode::Refused, Refusal::Code(ResponseCode::Refused)),
    ] {
        let mut message = reply(Vec::new());
        message.metadata.response_code = code;
        assert_eq!(read(&message), Some(Answer::Refused(refusal)));
        // FORMERR and friends may come without the question.
        message.queries.clear();
        assert_eq!(read(&message), Some(Answer::Refused(refusal)));
    }
    let mut cut = reply(vec![a("www.example.org.", 300, [192, 0, 2, 7])]);
    cut.metadata.truncation = true;
    assert_eq!(read(&cut), Some(Answer::Truncated));
}

#[test]
fn what_is_no_answer_to_the_question_is_passed_over() {
    let good = || reply(vec![a("www.example.org.", 300, [192, 0, 2, 7])]);
    assert!(read(&good()).is_some());
    let mut wrong = good();
    wrong.metadata.id ^= 1;
    assert_eq!(read(&wrong), None);
    let mut wrong = good();
    wrong.metadata.message_type = MessageType::Query;
    assert_eq!(read(&wrong), None);
    let mut wrong = good();
    wrong.queries = vec![Query::query(name("www.example.com."), RecordType::A)];
    assert_eq!(read(&wrong), None);
    wrong.queries = vec![Query::query(name("www.example.org."), RecordType::AAAA)];
    assert_eq!(read(&wrong), None);
    wrong.queries.clear();
    assert_eq!(read(&wrong), None);
    let bytes = good().to_vec().unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(question().answer(&bytes[..cut]), None, "{cut} bytes");
    }
}
