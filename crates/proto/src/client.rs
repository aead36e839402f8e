//! The client's side of the opening: from the end of the TLS handshake to the tunnel.
//!
//! Ask [`Opening::request`] for bytes to send as TLS application data, give what comes back to
//! [`Opening::handle_record`], record by record. Once it answers [`Answer::Welcome`], the next
//! byte in either direction is a tunnel record (docs/protocol.md, "The switch").

use crate::{
    VERSION,
    cipher::CipherId,
    device::{DeviceKey, Purpose},
    keys::{Direction, DoorKey, Proof, Root},
    knock::{self, Alpn, NotHttp2, SkipHttp2},
    message::{
        self, ClientMessage, Collector, Enrol, GatewayMessage, Login, MessageError, Offer, Refused,
        Reply, Request, Welcome,
    },
    record::{Opener, Sealer},
};

/// What a client shows to be let in.
#[derive(Debug)]
pub enum Credential<'a> {
    /// A user name and [`crate::credential::prehash`].
    Password {
        /// The user name, normalised.
        user: &'a str,
        /// The pre-hash.
        prehash: &'a [u8; 32],
    },
    /// An invitation's secret: of an unused one, or of the one this device has used.
    Invitation {
        /// The secret.
        secret: &'a [u8; 16],
    },
}

/// The client's side of one opening.
pub struct Opening {
    root: Root,
    proof: Proof,
    opener: Option<Vec<u8>>,
    offer: Offer,
    skip: Option<SkipHttp2>,
    collector: Collector,
}

/// What the gateway answered.
#[derive(Debug)]
pub enum Answer {
    /// The salt asked for.
    Salt([u8; 16]),
    /// Not let in; another request may follow on this connection.
    Refused(Refused),
    /// Let in.
    Welcome(Box<Established>),
}

/// A tunnel as the client has it.
#[derive(Debug)]
pub struct Established {
    /// What the gateway said.
    pub welcome: Welcome,
    /// The cipher of the stream.
    pub cipher: CipherId,
    /// Seals what goes to the gateway.
    pub sealer: Sealer,
    /// Opens what comes from it.
    pub opener: Opener,
}

/// Why the opening failed. Always the gateway's doing, or that of somebody on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// Not a control message. A gateway that does not know our door key answers as a web site.
    #[error(
        "the gateway did not recognise this client and answered as a web site; the invitation is \
         probably too old, ask for a new one ({0})"
    )]
    Message(#[from] MessageError),
    /// Neither HTTP/2 nor ours.
    #[error(transparent)]
    NotHttp2(#[from] NotHttp2),
    /// The gateway chose what was not offered.
    #[error("the gateway chose protocol version {version} with cipher {cipher}, not offered to it")]
    NotOffered {
        /// The version chosen.
        version: u8,
        /// The cipher chosen.
        cipher: u8,
    },
}

impl Opening {
    /// For a connection whose TLS handshake is complete and whose pin is good. `program` names
    /// this program and its version; `ciphers`: best first.
    pub fn new(
        root: Root,
        door: &DoorKey,
        alpn: Alpn,
        program: &str,
        ciphers: &[CipherId],
    ) -> Self {
        Self {
            proof: root.proof(),
            opener: Some(knock::opener(&root, door, alpn)),
            offer: Offer {
                versions: (VERSION, VERSION),
                program: program.to_owned(),
                ciphers: ciphers.iter().map(|c| c.wire()).collect(),
                transport: "tls".to_owned(),
            },
            skip: (alpn == Alpn::Http2).then(SkipHttp2::default),
            collector: Collector::default(),
            root,
        }
    }

    /// The bytes that ask to be let in; the first request carries the opener in front.
    pub fn request(&mut self, credential: &Credential<'_>, device: &DeviceKey) -> Vec<u8> {
        let public = device.public().into();
        let request = match credential {
            Credential::Password { user, prehash } => Request::Login(Login {
                user: (*user).to_owned(),
                prehash: (**prehash).into(),
                device: public,
                sig: device.sign(Purpose::Login, &self.proof).into(),
            }),
            Credential::Invitation { secret } => Request::Enrol(Enrol {
                secret: (**secret).into(),
                device: public,
                sig: device.sign(Purpose::Enrol, &self.proof).into(),
                prehash: None,
            }),
        };
        self.message(request)
    }

    /// The bytes that ask for a user's salt.
    pub fn request_salt(&mut self, user: &str) -> Vec<u8> {
        self.message(Request::GetSalt { user: user.to_owned() })
    }

    fn message(&mut self, request: Request) -> Vec<u8> {
        let mut bytes = self.opener.take().unwrap_or_default();
        let message = ClientMessage { offer: self.offer.clone(), request };
        bytes.extend_from_slice(&message::encode(&message));
        bytes
    }

    /// Takes the plaintext of one TLS record; `None` while the answer is not complete.
    pub fn handle_record(&mut self, plaintext: &[u8]) -> Result<Option<Answer>, OpeningError> {
        let ours = match &mut self.skip {
            Some(skip) => skip.skip(plaintext)?,
            None => plaintext,
        };
        if ours.is_empty() {
            return Ok(None);
        }
        let Some(body) = self.collector.push(ours)? else {
            return Ok(None);
        };
        let message: GatewayMessage = message::unpack(&body)?;
        Ok(Some(match message.reply {
            Reply::Salt { salt } => Answer::Salt(salt.into_array()),
            Reply::Refused(refused) => Answer::Refused(refused),
            Reply::Welcome(welcome) => Answer::Welcome(Box::new(self.establish(*welcome)?)),
        }))
    }

    fn establish(&self, welcome: Welcome) -> Result<Established, OpeningError> {
        let cipher = CipherId::from_wire(welcome.cipher)
            .filter(|c| self.offer.ciphers.contains(&c.wire()) && welcome.version == VERSION)
            .ok_or(OpeningError::NotOffered { version: welcome.version, cipher: welcome.cipher })?;
        let chain = self.root.chain(&welcome.session_id, welcome.version, cipher);
        Ok(Established {
            sealer: Sealer::new(cipher, &chain.stream_keys(Direction::ClientToServer)),
            opener: Opener::new(cipher, &chain.stream_keys(Direction::ServerToClient)),
            welcome,
            cipher,
        })
    }
}
