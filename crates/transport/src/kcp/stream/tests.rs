//! What becomes of streams that are given up.

use cipherwall_proto::{
    kcp::{DATAGRAM_MAX, Door},
    keys::DoorKey,
};

use super::*;
use crate::socket::SocketFactory;

#[tokio::test]
async fn of_a_crowd_of_strangers_none_lingers() {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = Arc::new(SocketFactory::default().udp_listen(local).unwrap());
    let (now, door) = (Instant::now(), Door::new(&DoorKey([7; 32])));
    let mut client = Conversation::client(now, &door, [1; 8], local);
    client.ask();
    client.poll(now);
    let mut room = [0; DATAGRAM_MAX];
    let Transmit::Written(len) = client.transmit(0, |len| room.get_mut(..len)) else {
        panic!("nothing to send");
    };
    let head = door.head(&room[..len]).unwrap();
    let strangers = Strangers::default();
    let lingers = |admitted: bool, others: usize| {
        let datagram = &mut room.to_vec()[..len];
        let begun = Conversation::gateway(now, &door, &head, local, datagram, [9; 32]);
        let home = Home { socket: socket.clone(), address: None };
        let stranger = Some(strangers.clone());
        let shared = Arc::new(Shared::new(begun.unwrap().0, home, 0, stranger));
        let _others = vec![strangers.clone(); others];
        let stream = KcpStream(shared.clone());
        if admitted {
            stream.admit();
        }
        drop(stream);
        matches!(shared.look(), Next::Wait(..))
    };
    assert!(lingers(false, 100));
    assert!(!lingers(false, STRANGERS_MAX));
    assert!(lingers(true, STRANGERS_MAX));
}
