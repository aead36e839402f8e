//! How connections begin, and what the programs behind the two ends keep of a session: the device and
//! its token here, the list of tokens there.

use cipherwall_proto::{
    cipher::CipherId,
    client::{self, Answer, Credential, Resumable},
    datagram::Channel,
    device::DeviceKey,
    gateway::{self, Demand},
    keys::{DoorKey, Root},
    knock::{Alpn, Verdict, Watch},
    message::{DatagramOffer, Text, Welcome},
    record::{Opener, Sealer},
};

use super::Settings;

pub(super) const MASK_KEY: [u8; 32] = [8; 32];
const DOOR: DoorKey = DoorKey([7; 32]);

/// What one end has of a new connection.
pub(super) struct Halves {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) channel: Option<Channel>,
}

/// What outlives connections.
pub(super) struct Memory {
    connections: u8,
    device: DeviceKey,
    /// The client's.
    session: Option<Resumable>,
    /// Those the gateway takes: the latest, and the one before until the client has stored the latest.
    tokens: Vec<[u8; 16]>,
}

impl Memory {
    pub(super) fn new() -> Memory {
        let device = DeviceKey::from_seed(&[5; 32]);
        Memory { connections: 0, device, session: None, tokens: Vec::new() }
    }

    /// The session has ended; the next connection begins another one.
    pub(super) fn forget(&mut self) {
        self.session = None;
    }

    /// The client's word that it has stored its token.
    pub(super) fn token_stored(&mut self) {
        let latest = self.tokens.pop();
        self.tokens = latest.into_iter().collect();
    }

    /// A resume whose answer never comes: the gateway has a new token, the client has not.
    pub(super) fn lose_answer(&mut self, settings: &Settings) {
        if let Some(session) = self.session.clone() {
            self.connect(settings);
            self.session = Some(session);
        }
    }

    /// A log-in, or a resume of the session if there is one. It always succeeds, whatever was lost
    /// before. The client's halves first.
    pub(super) fn connect(&mut self, settings: &Settings) -> [Halves; 2] {
        self.connections = self.connections.wrapping_add(1);
        let root = || Root([self.connections; 32]);
        let alpn = if self.connections.is_multiple_of(2) { Alpn::Http1 } else { Alpn::Http2 };
        let mut client = client::Opening::new(root(), &DOOR, alpn, "model", &[settings.stream]);
        let mut watch = Watch::new(&root(), &[DOOR], alpn);
        let mut gateway = gateway::Opening::new(root(), true);
        let wanted: Vec<_> = settings.datagrams.into_iter().collect();
        client.offer_datagrams(&wanted);

        let (request, resumed) = match &self.session {
            Some(session) => {
                let (request, resumed) = client.resume(session, &self.device);
                (request, Some(resumed))
            }
            None => {
                let credential = Credential::Invitation { secret: &[4; 16] };
                (client.request(&credential, &self.device), None)
            }
        };
        let Verdict::Opened { consumed } = watch.push(&request) else {
            panic!("the gateway does not know its client");
        };
        let demand = gateway.handle_record(&request[consumed..]);
        self.judge(demand.expect("a good request").expect("a whole one"));

        let token = [self.connections; 16];
        self.tokens.push(token);
        let (answer, theirs) = gateway.welcome(self.welcome(token));
        let (welcome, sealer, opener) = match client.handle_record(&answer) {
            Ok(Some(Answer::Welcome(ours))) => (ours.welcome, ours.sealer, ours.opener),
            Ok(Some(Answer::Resumed(welcome))) => {
                let halves = resumed.expect("it was asked for");
                (*welcome, halves.sealer, halves.opener)
            }
            other => panic!("not let in: {other:?}"),
        };
        let channel = client.channel(&welcome);
        assert_eq!(channel.is_some(), settings.datagrams.is_some());
        self.session = Some(Resumable {
            token: *welcome.token,
            session_id: *welcome.session_id,
            version: welcome.version,
            cipher: CipherId::from_wire(welcome.cipher).expect("a cipher"),
        });
        let gateway =
            Halves { sealer: theirs.sealer, opener: theirs.opener, channel: theirs.datagram };
        [Halves { sealer, opener, channel }, gateway]
    }

    /// As the gateway's accounts do it.
    fn judge(&mut self, demand: Demand) {
        match demand {
            Demand::Resume { token, signature } => {
                assert!(signature.is_by(&self.device.public()), "not the device");
                assert!(self.tokens.contains(&token), "the client is locked out");
                self.tokens.retain(|known| *known == token);
            }
            Demand::Enrol { secret, device, .. } => {
                assert_eq!((secret, device), ([4; 16], self.device.public()));
                self.tokens.clear();
            }
            Demand::Salt { .. } | Demand::Login { .. } | Demand::Refuse(_) => {
                panic!("another demand than the client's: {demand:?}");
            }
        }
    }

    fn welcome(&self, token: [u8; 16]) -> Welcome {
        // a session keeps its id
        let session_id = self.session.as_ref().map_or(token, |session| session.session_id);
        Welcome {
            session_id: session_id.into(),
            token: token.into(),
            version: 0,
            cipher: 0,
            v4: Text([10, 8, 0, 2].into()),
            v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
            routes: Vec::new(),
            dns: Vec::new(),
            mtu: 1_420,
            keepalive: 15,
            time: 0,
            pins: Vec::new(),
            datagram: Some(DatagramOffer::new(1194, self.connections.into(), MASK_KEY)),
        }
    }
}
