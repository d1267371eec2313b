use super::super::server::Server;
use super::*;
use crate::config::{Email, Login, MailTls, PasswordSource, Secret};

fn server() -> Server {
    let login = Login { user: "u".into(), password: PasswordSource::Inline(Secret::new("hunter2")) };
    let email = Email {
        from: "root".into(),
        to: vec!["root".into()],
        host: "127.0.0.1".into(),
        port: 25,
        tls: MailTls::Opportunistic,
        ca_file: None,
        login: Some(login),
    };
    Server::new(&email).unwrap().0
}

#[test]
fn an_answer_that_quotes_the_password_is_not_shown() {
    let server = server();
    for quoted in ["hunter2", "aHVudGVyMg==", "AHUAaHVudGVyMg=="] {
        let shown = server.without_secrets(&format!("500 what is '{quoted}'?"));
        assert_eq!(shown, "the server's answer quotes the password and is not shown");
    }
    assert_eq!(server.without_secrets("535 5.7.8\r\nno such user"), "535 5.7.8 no such user");
}

#[test]
fn a_greeting_name_is_a_full_one_or_an_address() {
    let ClientId::Ipv4(address) = own_address("127.0.0.1:25".parse().unwrap()).unwrap() else {
        panic!("not an address");
    };
    assert!(address.is_loopback());
}
