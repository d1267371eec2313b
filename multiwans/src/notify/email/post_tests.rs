//! What is told when mails are not delivered. Nobody listens where they go.

use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

use super::*;
use crate::engine::Status;
use crate::engine::alerts::{Alert, Subject};
use crate::engine::tests::world;

/// The lines of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
                self.0 = format!("{value:?}");
            }
        }
        let mut message = Message(event.metadata().level().to_string());
        event.record(&mut message);
        self.0.lock().unwrap().push(format!("{} {}", event.metadata().level(), message.0));
    }
}

fn post() -> (mpsc::Sender<Order>, Post) {
    let mut config = world::config(&[Some(1)]);
    let text = "ping: {targets: [1.1.1.1]}\nemail: {host: 127.0.0.1, port: 1}\n\
                WANS: [{description: A, mark: 1, iface: a, ip: 10.0.0.2, mask: 24, gateway: 10.0.0.1}]\n";
    config.email = crate::config::parse(text, "test").unwrap().config.email;
    let email = config.email.clone().unwrap();
    let server = Server::new(&email).unwrap().0;
    let (orders, orders_rx) = mpsc::channel(CAPACITY);
    (orders, Post::new(Office { email, server, book: Book::new(&config, TimeZone::UTC) }, orders_rx))
}

/// A report written so many seconds after 1970.
fn report(subject: Subject, written: u64) -> Report {
    let status = Status { default: None, wans: Vec::new() };
    Report { alert: Alert { subject, entries: Vec::new(), left_out: 0 }, status, written, started: 0 }
}

#[tokio::test]
async fn the_oldest_of_too_many_is_dropped_and_told() {
    let (_orders, mut post) = post();
    let log = Log::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    for written in 0..=u64::try_from(CAPACITY).unwrap() {
        post.write(&report(Subject::Error, written));
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("ERROR mail \"ERROR: ") && lines[0].contains("01/01/1970 00:00:00"));
    assert!(lines[0].ends_with("is dropped: too many are waiting to be delivered"), "{lines:?}");
}

#[tokio::test]
async fn an_outage_is_told_once_and_what_is_lost_at_the_stop_by_name() {
    let (orders, post) = post();
    let log = Log::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    orders.send(Order::Mail(Box::new(report(Subject::Start, 60)))).await.unwrap();
    orders.send(Order::Mail(Box::new(report(Subject::Error, 120)))).await.unwrap();
    orders.send(Order::Stop(Box::new(report(Subject::Stop, 180)))).await.unwrap();
    let started = Instant::now();
    post.run().await;
    assert!(started.elapsed() >= STOP_TIME - STOP_PAUSE, "it is tried until the end");
    assert!(started.elapsed() < STOP_TIME + STOP_GRACE, "and no longer");
    let lines = log.lines();
    let waiting = lines.iter().filter(|line| line.starts_with("WARN") && line.contains("is waiting")).count();
    assert_eq!(waiting, 1, "{lines:?}");
    let again =
        lines.iter().filter(|line| line.starts_with("DEBUG") && line.contains("still waiting")).count();
    assert!(again >= 3, "{lines:?}");
    for subject in ["START", "ERROR", "STOP"] {
        let lost = format!("WARN mail \"{subject}: ");
        let lost = |line: &&String| line.starts_with(&lost) && line.ends_with("before the stop and is lost");
        assert_eq!(lines.iter().filter(lost).count(), 1, "{subject}: {lines:?}");
    }
}

#[tokio::test]
async fn a_link_that_came_back_ends_the_pause() {
    let (orders, post) = post();
    let log = Log::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    orders.send(Order::Mail(Box::new(report(Subject::Error, 60)))).await.unwrap();
    let tries = async |count: usize| {
        while log.lines().iter().filter(|line| line.contains("waiting: connection to")).count() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let news = async {
        tries(1).await;
        let started = Instant::now();
        orders.send(Order::Hurry).await.unwrap();
        tries(2).await;
        // Left alone it would be 5 s.
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    };
    tokio::select! {
        () = post.run() => panic!("it ended"),
        () = news => {}
    }
}
