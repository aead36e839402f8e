//! A gateway's conversations: whose each datagram is, and which ones begin a new one.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use cipherwall_proto::{
    kcp::{Conversation, Door, Head, Register},
    keys::DoorKey,
};

use super::{
    KcpStream, driver,
    stream::{Home, Shared, Strangers, unix_s},
};
use crate::{
    Carrier,
    datagram::{give_back_received, take_received},
    udp::{Datagram, Received, UdpSocket},
};

/// How often a socket is emptied before others have their turn.
const BATCHES: usize = 8;

/// What all sockets of a gateway have in common. Who does not have a door key gets no answer, and
/// takes no memory.
pub struct Gate {
    inner: Mutex<Inner>,
}

struct Inner {
    doors: Vec<(DoorKey, Door)>,
    register: Register,
    by_number: HashMap<[u8; 8], Arc<Shared>>,
    /// Each conversation has one until its client has logged in.
    strangers: Strangers,
}

impl Gate {
    /// Of a gateway that begins now. It opens with the keys of [`Gate::set_keys`].
    pub fn new() -> Arc<Self> {
        let register = Register::new(unix_s(0));
        let (by_number, strangers) = (HashMap::new(), Strangers::default());
        let inner = Inner { doors: Vec::new(), register, by_number, strangers };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// The door keys from now on: the current one, and the one before.
    pub fn set_keys(&self, keys: impl IntoIterator<Item = DoorKey>) {
        let mut inner = self.lock();
        let known = std::mem::take(&mut inner.doors);
        inner.doors = keys
            .into_iter()
            .map(|key| match known.iter().find(|(known, _)| *known == key) {
                Some((_, door)) => (key, door.clone()),
                None => {
                    let door = Door::new(&key);
                    (key, door)
                }
            })
            .collect();
    }

    /// Conversations that are not over.
    pub fn len(&self) -> usize {
        self.lock().by_number.len()
    }

    /// Whether there is no conversation.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what has come to a socket. Of a client that begins a conversation, `admit` says by its
    /// address whether there is a place for it; `begin` gets the conversation and the place.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn receive<P>(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        mut admit: impl FnMut(SocketAddr) -> Option<P>,
        mut begin: impl FnMut(Carrier, SocketAddr, P),
    ) -> io::Result<()> {
        socket.readable().await?;
        let mut received = take_received();
        let mut result = Ok(());
        for _ in 0..BATCHES {
            match socket.try_receive(&mut received) {
                Ok(()) => self.hand_out(socket, &mut received, &mut admit, &mut begin),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        give_back_received(received);
        result
    }

    /// Gives datagrams to their conversations, each of which answers to all of them at once.
    fn hand_out<P>(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        received: &mut Received,
        admit: &mut impl FnMut(SocketAddr) -> Option<P>,
        begin: &mut impl FnMut(Carrier, SocketAddr, P),
    ) {
        let now = Instant::now();
        let mut last: Option<Arc<Shared>> = None;
        for Datagram { from, to, bytes } in received.datagrams() {
            let home = Home { socket: socket.clone(), address: to };
            let Some((shared, head)) = self.find(bytes) else {
                if let Some((stream, place)) = self.try_begin(now, home, from, bytes, admit) {
                    begin(stream.into(), from, place);
                }
                continue;
            };
            shared.receive(now, &home, from, &head, bytes);
            if let Some(before) = last.replace(shared.clone())
                && !Arc::ptr_eq(&before, &shared)
            {
                before.drive();
            }
        }
        last.into_iter().for_each(|shared| shared.drive());
    }

    /// The conversation of which a datagram says that it is.
    fn find(&self, datagram: &[u8]) -> Option<(Arc<Shared>, Head)> {
        let inner = self.lock();
        inner.doors.iter().find_map(|(_, door)| {
            let head = door.head(datagram)?;
            Some((inner.by_number.get(&head.conversation)?.clone(), head))
        })
    }

    /// Begins a conversation, if the datagram may.
    fn try_begin<P>(
        self: &Arc<Self>,
        now: Instant,
        home: Home,
        from: SocketAddr,
        datagram: &mut [u8],
        admit: &mut impl FnMut(SocketAddr) -> Option<P>,
    ) -> Option<(KcpStream, P)> {
        let now_s = unix_s(0);
        let mut inner = self.lock();
        let Inner { doors, register, .. } = &mut *inner;
        let (door, head) = doors.iter().find_map(|(_, door)| {
            let head = door.head(datagram)?;
            register.considers(now, now_s, &head).then(|| (door.clone(), head))
        })?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).ok()?;
        let begun = Conversation::gateway(now, &door, &head, from, datagram, secret);
        let (conversation, time_s) = begun?;
        if !inner.register.admits(now, now_s, &head, time_s) {
            return None;
        }
        let place = admit(from)?;
        let stranger = Some(inner.strangers.clone());
        let shared = Arc::new(Shared::new(conversation, home, 0, stranger));
        inner.by_number.insert(head.conversation, shared.clone());
        drop(inner);
        let gate = self.clone();
        let driven = shared.clone();
        tokio::spawn(async move {
            driver::run(&driven).await;
            gate.lock().by_number.remove(&driven.number());
        });
        Some((KcpStream(shared), place))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("conversations", &self.len()).finish()
    }
}
