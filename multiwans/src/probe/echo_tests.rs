use proptest::prelude::*;

use super::*;

const SOURCE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

fn echo() -> impl Strategy<Value = Echo> {
    (any::<u16>(), any::<u16>(), any::<u64>()).prop_map(|(identifier, sequence, cookie)| Echo {
        identifier,
        sequence,
        cookie: Cookie(cookie),
    })
}

/// The packet a raw socket would deliver: an IP header of `words` 32-bit words before the message.
fn packet(words: u8, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; usize::from(words) * 4];
    packet[0] = 0x40 | words;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&SOURCE.octets());
    packet.extend_from_slice(message);
    let len = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet
}

#[test]
fn the_checksum_is_rfc_1071s() {
    // The example of RFC 1071 section 3, and an odd length: padded with a zero byte.
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    assert_eq!(checksum(&[0x12, 0x34, 0x56]), checksum(&[0x12, 0x34, 0x56, 0x00]));
    // The sum 0xffff + 0xffff carries once.
    assert_eq!(checksum(&[0xff; 4]), 0);
}

#[test]
fn a_request_is_an_echo_request_on_the_wire() {
    let echo = Echo { identifier: 0x1234, sequence: 0x0102, cookie: Cookie(0xa0a1_a2a3_a4a5_a6a7) };
    let expected = [8, 0, 0x58, 0x37, 0x12, 0x34, 0x01, 0x02, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7];
    let request = echo.request();
    assert_eq!(request[4..], expected[4..]);
    assert_eq!(request[..2], expected[..2]);
    // Summed by hand, so that a wrong checksum cannot agree with itself.
    let sum: u32 = [0x0800u32, 0x1234, 0x0102, 0xa0a1, 0xa2a3, 0xa4a5, 0xa6a7].iter().sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    assert_eq!(u32::from(u16::from_be_bytes([request[2], request[3]])), 0xffff - folded);
}

#[test]
fn only_icmp_echo_replies_of_our_length_are_read() {
    let echo = Echo { identifier: 1, sequence: 2, cookie: Cookie(3) };
    let good = packet(5, IPPROTO_ICMP, &echo.message(ECHO_REPLY));
    assert_eq!(Reply::parse(&good), Some(Reply { source: SOURCE, echo }));

    assert_eq!(Reply::parse(&packet(5, 17, &echo.message(ECHO_REPLY))), None, "UDP");
    assert_eq!(Reply::parse(&packet(5, IPPROTO_ICMP, &echo.request())), None, "a request");
    assert_eq!(Reply::parse(&packet(5, IPPROTO_ICMP, &echo.message(3))), None, "unreachable");
    assert_eq!(Reply::parse(&packet(5, IPPROTO_ICMP, &echo.message(ECHO_REPLY)[..15])), None, "short");
    let mut long = echo.message(ECHO_REPLY).to_vec();
    long.push(0);
    assert_eq!(Reply::parse(&packet(5, IPPROTO_ICMP, &long)), None, "long");
    let mut ipv6 = good.clone();
    ipv6[0] = 0x65;
    assert_eq!(Reply::parse(&ipv6), None, "version 6");
    let mut lying = good;
    lying[3] += 1;
    assert_eq!(Reply::parse(&lying), None, "a total length that is not the packet's");
}

#[test]
fn a_code_other_than_zero_is_no_echo_reply() {
    let mut message = Echo { identifier: 1, sequence: 2, cookie: Cookie(3) }.message(ECHO_REPLY);
    message[1] = 1;
    message[2..4].fill(0);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(Reply::parse(&packet(5, IPPROTO_ICMP, &message)), None);
}

proptest! {
    #[test]
    fn what_is_echoed_is_read_back(echo in echo(), words in 5u8..=15) {
        let packet = packet(words, IPPROTO_ICMP, &echo.message(ECHO_REPLY));
        prop_assert!(packet.len() <= REPLY_MAX);
        prop_assert_eq!(Reply::parse(&packet), Some(Reply { source: SOURCE, echo }));
    }

    #[test]
    fn a_flipped_bit_is_noticed(echo in echo(), bit in 0..REQUEST_LEN * 8) {
        let mut message = echo.message(ECHO_REPLY);
        message[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Reply::parse(&packet(5, IPPROTO_ICMP, &message)), None);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=REPLY_MAX + 8)) {
        let _ = Reply::parse(&bytes);
    }

    #[test]
    fn nor_does_a_header_that_lies(echo in echo(), words in 0u8..=15, cut in 0usize..=40) {
        let mut packet = packet(5, IPPROTO_ICMP, &echo.message(ECHO_REPLY));
        packet.truncate(packet.len().saturating_sub(cut));
        if let Some(first) = packet.first_mut() { *first = 0x40 | words; }
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        if packet.len() > 4 { packet[2..4].copy_from_slice(&len); }
        let read = Reply::parse(&packet);
        prop_assert_eq!(read.is_some(), words == 5 && cut == 0);
    }
}
