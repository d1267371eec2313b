//! The thread that writes and delivers mails.

use std::pin::pin;
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::content::{Book, Report};
use super::message::Message;
use super::queue::{CAPACITY, Queue, Taken};
use super::router::Router;
use super::server::{Server, SetupError};
use super::session::{Delivery, Failure};
use crate::config::{Config, Email};

/// What the thread has for everything that waits and the STOP mail, once the daemon stops.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Pause between tries then.
const STOP_PAUSE: Duration = Duration::from_secs(1);
/// From the news that a link came back to the next try: its routes are being set up meanwhile.
const ROUTES_TIME: Duration = Duration::from_millis(500);
/// What is under way at such news, or at a new configuration, may hang on the link that died, and gets no more than this to end.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// How much longer the daemon waits for the thread's word that it is done.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// What the daemon tells the thread.
enum Order {
    Mail(Box<Report>),
    Configure(Box<Office>),
    Hurry,
    Stop(Box<Report>),
}

/// Everything that mails follow of a configuration.
pub struct Office {
    email: Email,
    server: Server,
    book: Book,
}

impl Office {
    /// Takes the configuration and fetches what it refers to; `None` where it has no `email`. Beside it,
    /// what is odd about that.
    ///
    /// # Errors
    /// A password or certificate that is not where it should be.
    pub fn open(config: &Config) -> Result<Option<(Self, Option<String>)>, SetupError> {
        let Some(email) = &config.email else { return Ok(None) };
        let (server, warning) = Server::new(email)?;
        let book = Book::new(config, TimeZone::system());
        Ok(Some((Self { email: email.clone(), server, book }, warning)))
    }
}

/// The daemon's end. None of its methods waits for anything but [`stop`](Self::stop).
#[derive(Debug)]
pub struct Mailer {
    orders: mpsc::Sender<Order>,
    done: oneshot::Receiver<()>,
}

impl Mailer {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(office: Office) -> Result<Self, SetupError> {
        let (orders, orders_rx) = mpsc::channel(CAPACITY);
        let (done_tx, done) = oneshot::channel();
        thread::Builder::new()
            .name("mail".to_owned())
            .spawn(move || {
                let post = Post::new(office, orders_rx);
                match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        runtime.block_on(post.run());
                        // A name may still be being resolved; nobody waits for that.
                        runtime.shutdown_background();
                    }
                    Err(error) => tracing::error!("no mails will be sent: {error}"),
                }
                let _ = done_tx.send(());
            })
            .map_err(SetupError::NoThread)?;
        Ok(Self { orders, done })
    }

    /// Follows another configuration from the next mail on. Those that wait keep what is in them, and are
    /// handed to the new server.
    pub fn configure(&self, office: Office) {
        // A thread that is gone has said so.
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Configure(Box::new(office))) {
            tracing::error!("mails go as before: {CAPACITY} are waiting to be written");
        }
    }

    /// One whose thread takes nothing; and how many orders wait for it.
    #[cfg(test)]
    pub(crate) fn deaf() -> (Self, impl Fn() -> usize) {
        let (orders, orders_rx) = mpsc::channel(CAPACITY);
        let (_, done) = oneshot::channel();
        (Self { orders, done }, move || orders_rx.len())
    }

    /// Has a mail written and delivered.
    pub fn mail(&self, report: Report) {
        let subject = report.alert.subject;
        // A thread that is gone has said so.
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Mail(Box::new(report))) {
            tracing::error!("a mail {subject} is lost: {CAPACITY} are waiting to be written");
        }
    }

    /// What waits is tried again now: a link came back.
    pub fn hurry(&self) {
        // With that many orders waiting the thread will try again without being told.
        let _ = self.orders.try_send(Order::Hurry);
    }

    /// Has the last mail delivered, and waits for it and all others, but a few seconds at most.
    pub async fn stop(self, report: Report) {
        let Self { orders, done } = self;
        let told = async move {
            let _ = orders.send(Order::Stop(Box::new(report))).await;
            done.await
        };
        if timeout(STOP_TIME + STOP_GRACE, told).await.is_err() {
            tracing::warn!("mails that were not delivered yet are lost: the mail thread does not answer");
        }
    }
}

/// The thread's end.
struct Post {
    office: Office,
    orders: mpsc::Receiver<Order>,
    queue: Queue,
    start: Instant,
    /// When to end, once asked to.
    stop_at: Option<Instant>,
    /// What was logged last about the server, so that an outage is told once and not at every try.
    told: Option<String>,
}

impl Post {
    fn new(office: Office, orders: mpsc::Receiver<Order>) -> Self {
        let start = Instant::now();
        Self { office, orders, queue: Queue::default(), start, stop_at: None, told: None }
    }

    async fn run(mut self) {
        loop {
            if self.stop_at.is_some_and(|stop| stop <= Instant::now()) {
                break;
            }
            if let Some(taken) = self.queue.take(self.now()) {
                self.deliver(taken).await;
                continue;
            }
            let due = self.queue.due().map(|due| self.start + due);
            if self.stop_at.is_some_and(|stop| due.is_none_or(|due| due >= stop)) {
                break;
            }
            tokio::select! {
                order = self.orders.recv(), if self.stop_at.is_none() => self.obey(order),
                () = until(due) => {}
                () = until(self.stop_at) => break,
            }
        }
        for message in self.queue.drain() {
            tracing::warn!("mail \"{}\" could not be delivered before the stop and is lost", message.subject);
        }
    }

    fn obey(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Mail(report)) => self.write(&report),
            Some(Order::Hurry) => self.queue.hurry(self.now() + ROUTES_TIME),
            Some(Order::Configure(office)) => {
                self.office = *office;
                self.told = None;
                self.queue.hurry(self.now());
            }
            Some(Order::Stop(report)) => {
                self.stop_at = Some(Instant::now() + STOP_TIME);
                self.queue.hurry(self.now());
                self.write(&report);
            }
            // The daemon is gone without a word: so go we.
            None => self.stop_at = Some(Instant::now()),
        }
    }

    fn write(&mut self, report: &Report) {
        let router = Router::look();
        let document = self.office.book.write(report, &router);
        let message = match Message::new(&self.office.email, &document, &router.hostname, report.written) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!("mail \"{}\" cannot be written: {error}", document.subject);
                return;
            }
        };
        if let Some(dropped) = self.queue.push(message, self.now()) {
            tracing::error!("mail \"{}\" is dropped: too many are waiting to be delivered", dropped.subject);
        }
    }

    /// Tries one message; orders are still taken meanwhile.
    async fn deliver(&mut self, mut taken: Taken) {
        if let Err(error) = self.office.server.renew_password() {
            tracing::warn!("the password that was read before is used: {error}");
        }
        let Self { office, orders, .. } = self;
        let mut told = |step: String| tracing::debug!("mail: {step}");
        let mut arrived = Vec::new();
        let mut stop_at = self.stop_at;
        let mut end_at = stop_at;
        let result = {
            let mut delivery = pin!(office.server.deliver(taken.message(), &mut told));
            loop {
                tokio::select! {
                    result = &mut delivery => break Some(result),
                    order = orders.recv(), if stop_at.is_none() => {
                        match &order {
                            Some(Order::Mail(_)) => {}
                            Some(Order::Hurry | Order::Configure(_)) => {
                                end_at = end_at.or_else(|| Some(Instant::now() + LAST_CHANCE));
                            }
                            Some(Order::Stop(_)) | None => {
                                stop_at = Some(Instant::now() + STOP_TIME);
                                end_at = end_at.or(stop_at);
                            }
                        }
                        arrived.push(order);
                    }
                    () = until(end_at) => break None,
                }
            }
        };
        match result {
            Some(Ok(delivery)) => self.settle(&mut taken, delivery).map_or((), |failure| {
                self.postpone(taken, &failure);
            }),
            Some(Err(failure)) => self.failed(taken, failure),
            // The stop's time is over, or the link's that it hung on.
            None => {
                self.queue.server_failed(taken, self.now());
                if stop_at.is_none() {
                    self.queue.hurry(self.now());
                }
            }
        }
        for order in arrived {
            self.obey(order);
        }
        if stop_at.is_some() {
            self.stop_at = stop_at;
        }
    }

    /// Draws the conclusions for each recipient; what is left to do is in the message afterwards. Why there
    /// is anything left.
    fn settle(&mut self, taken: &mut Taken, delivery: Delivery) -> Option<Failure> {
        self.queue.answered();
        self.told = None;
        let message = taken.message_mut();
        if !delivery.accepted.is_empty() {
            let accepted: Vec<String> = delivery.accepted.iter().map(ToString::to_string).collect();
            tracing::info!("mail \"{}\" sent to {}", message.subject, accepted.join(", "));
        }
        let mut later = None;
        message.recipients.clear();
        for (recipient, failure) in delivery.refused {
            if failure.permanent {
                tracing::error!("mail \"{}\" is not delivered to {recipient}: {failure}", message.subject);
            } else {
                message.recipients.push(recipient);
                later = Some(failure);
            }
        }
        later
    }

    fn failed(&mut self, taken: Taken, failure: Failure) {
        let subject = taken.message().subject.clone();
        if failure.permanent {
            tracing::error!("mail \"{subject}\" is dropped: {failure}");
        } else if failure.of_server {
            let pause = self.queue.server_failed(taken, self.now());
            if self.stop_at.is_some() {
                self.queue.hurry(self.now() + STOP_PAUSE);
            }
            if self.told.as_deref() == Some(&failure.text) {
                tracing::debug!("mail \"{subject}\" is still waiting: {failure}; next try in {pause:?}");
            } else {
                tracing::warn!("mail \"{subject}\" is waiting: {failure}; next try in {pause:?}");
                self.told = Some(failure.text);
            }
        } else {
            self.postpone(taken, &failure);
        }
    }

    fn postpone(&mut self, taken: Taken, failure: &Failure) {
        let subject = taken.message().subject.clone();
        match self.queue.postpone(taken, self.now()) {
            Ok(pause) => tracing::warn!("mail \"{subject}\" is waiting: {failure}; next try in {pause:?}"),
            Err(message) => {
                tracing::error!("mail \"{}\" is dropped after 5 days: {failure}", message.subject);
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "post_tests.rs"]
mod tests;
