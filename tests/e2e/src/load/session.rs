//! One session: a task that keeps the tunnel alive, and moves bulk data while it is told to.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cipherwall_packet::offload::OffloadHeader;
use cipherwall_proto::frame::Control;
use cipherwall_proto::tunnel::Event;
use cipherwall_transport::tunnel::Link;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::dial::Dialed;
use super::stack::Stack;
use super::{Arrived, Way};

/// What a session is told.
pub(super) enum Order {
    /// Move bulk data, as the session `index` of the peer's.
    Start { way: Way, index: u32, arrived: Arrived },
    /// Be idle.
    Stop,
    /// Say farewell.
    Close,
}

/// A session that runs by itself.
pub(super) struct Session {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<Result<()>>,
}

impl Session {
    pub(super) fn start(dialed: Dialed) -> Session {
        let (orders, ordered) = mpsc::unbounded_channel();
        Session { orders, task: tokio::spawn(run(dialed, ordered)) }
    }

    pub(super) fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).ok().context("a session has ended before its time")
    }

    /// Waits for its end, which has to be a farewell.
    pub(super) async fn end(self) -> Result<()> {
        self.task.await.context("a session's task")?
    }
}

/// What made the task look up.
enum Woken {
    Order(Option<Order>),
    Link,
    Time,
}

async fn run(dialed: Dialed, mut orders: mpsc::UnboundedReceiver<Order>) -> Result<()> {
    let Dialed { mut link, address, mtu } = dialed;
    let mut stack: Option<Stack> = None;
    loop {
        match wait(&mut link, &mut orders, stack.as_mut(), address).await? {
            Woken::Order(Some(Order::Start { way, index, arrived })) => {
                stack = Some(Stack::new(link.sender().clone(), address, mtu, way, index, arrived)?);
            }
            Woken::Order(Some(Order::Stop)) => {
                if let Some(stack) = stack.take() {
                    stack.abort()?;
                }
            }
            Woken::Order(Some(Order::Close)) => {
                link.finish(&Control::Close).await;
                return Ok(());
            }
            // nobody is left to give orders
            Woken::Order(None) => return Ok(()),
            Woken::Link | Woken::Time => {}
        }
        if let Some(stack) = &mut stack {
            stack.work()?;
            // otherwise a busy session keeps its thread until it runs dry, and fairness would be
            // that of this runtime
            tokio::task::yield_now().await;
        }
    }
}

async fn wait(
    link: &mut Link,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    mut stack: Option<&mut Stack>,
    address: Ipv4Addr,
) -> Result<Woken> {
    let pause = stack.as_mut().and_then(|stack| stack.pause()).unwrap_or(Duration::from_secs(3600));
    let mut on_packet = |_: &OffloadHeader, packet: &[u8]| {
        if let Some(stack) = &mut stack {
            stack.receive(packet);
        }
    };
    tokio::select! {
        order = orders.recv() => Ok(Woken::Order(order)),
        event = link.run(&mut on_packet) => match event.with_context(|| format!("session {address}"))? {
            Some(Event::Dead) => bail!("session {address}: the gateway has fallen silent"),
            Some(Event::Peer(control)) => bail!("session {address}: the gateway says {control:?}"),
            Some(Event::Suspect) | None => Ok(Woken::Link),
        },
        () = tokio::time::sleep(pause) => Ok(Woken::Time),
    }
}
