//! The client's side of the opening: from the end of the TLS handshake to the tunnel.
//!
//! Ask [`Opening::request`] for bytes to send as TLS application data, give what comes back to
//! [`Opening::handle_record`], record by record. Once it answers [`Answer::Welcome`], the next
//! byte in either direction is a tunnel record (docs/protocol.md, "The switch").

use crate::{
    VERSION,
    cipher::{CipherId, DatagramCipher},
    datagram::Channel,
    device::{DeviceKey, Purpose},
    keys::{Direction, DoorKey, Proof, Root},
    knock::{self, Alpn, SkipError, SkipHttp2},
    message::{
        self, ClientMessage, Collector, Enrol, GatewayMessage, Login, MessageError, Offer, Refused,
        Reply, Request, Resume, Welcome,
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

/// A session as its client keeps it, to go on with it later.
#[derive(Clone)]
pub struct Resumable {
    /// The latest token.
    pub token: [u8; 16],
    /// The session's id.
    pub session_id: [u8; 16],
    /// The session's protocol version.
    pub version: u8,
    /// The session's cipher.
    pub cipher: CipherId,
}

/// Both halves of a tunnel, ready before the gateway has answered.
#[derive(Debug)]
pub struct Resumed {
    /// Seals what goes to the gateway.
    pub sealer: Sealer,
    /// Opens what comes from it, behind its `Welcome`.
    pub opener: Opener,
}

/// The client's side of one opening.
pub struct Opening {
    root: Root,
    proof: Proof,
    opener: Option<Vec<u8>>,
    offer: Offer,
    /// The session to be resumed, if one was asked for.
    resuming: Option<[u8; 16]>,
    skip: Option<SkipHttp2>,
    collector: Collector,
}

/// What the gateway answered.
#[derive(Debug)]
pub enum Answer {
    /// The salt asked for.
    Salt([u8; 16]),
    /// Not let in; another request may follow on this connection, unless this was a resume.
    Refused(Refused),
    /// Let in.
    Welcome(Box<Established>),
    /// The session goes on, with the halves that [`Opening::resume`] gave.
    Resumed(Box<Welcome>),
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
    /// Neither HTTP/2 nor ours, or the web site's.
    #[error(transparent)]
    Skip(#[from] SkipError),
    /// The gateway chose what was not offered.
    #[error("the gateway chose protocol version {version} with cipher {cipher}, not offered to it")]
    NotOffered {
        /// The version chosen.
        version: u8,
        /// The cipher chosen.
        cipher: u8,
    },
    /// The gateway chose a datagram cipher that was not offered, or left out the one that a resume
    /// had to have: a resume without datagrams, or a log-in, can still succeed.
    #[error("the gateway did not agree to the datagram cipher offered to it")]
    Datagrams,
    /// The gateway went on with a session that is not ours.
    #[error("the gateway resumed another session than the one asked for")]
    OtherSession,
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
                datagrams: Vec::new(),
            },
            resuming: None,
            skip: (alpn == Alpn::Http2).then(SkipHttp2::default),
            collector: Collector::default(),
            root,
        }
    }

    /// Asks for datagrams beside the stream, with one of these ciphers, best first. With a resume only
    /// the first counts, which should be that of the session's last [`Welcome`].
    pub fn offer_datagrams(&mut self, ciphers: &[DatagramCipher]) {
        self.offer.datagrams = ciphers.iter().map(|cipher| cipher.wire()).collect();
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

    /// The bytes that ask for a session to go on. Behind them, in a TLS record of their own,
    /// records sealed by the tunnel may follow at once; no other request can.
    pub fn resume(&mut self, session: &Resumable, device: &DeviceKey) -> (Vec<u8>, Resumed) {
        let Resumable { token, session_id, version, cipher } = session;
        self.offer.versions = (*version, *version);
        self.offer.ciphers = vec![cipher.wire()];
        self.offer.datagrams.truncate(1);
        self.resuming = Some(*session_id);
        let request = Request::Resume(Resume {
            token: (*token).into(),
            sig: device.sign(Purpose::Resume, &self.proof).into(),
        });
        let (sealer, opener) = self.halves(session_id, *version, *cipher, self.resumed_datagram());
        (self.message(request), Resumed { sealer, opener })
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
            Reply::Welcome(welcome) => match &self.resuming {
                Some(id) if *id != *welcome.session_id => return Err(OpeningError::OtherSession),
                Some(_) => {
                    self.agreed(&welcome)?;
                    Answer::Resumed(welcome)
                }
                None => Answer::Welcome(Box::new(self.establish(*welcome)?)),
            },
        }))
    }

    fn establish(&self, welcome: Welcome) -> Result<Established, OpeningError> {
        let (cipher, datagram) = self.agreed(&welcome)?;
        let (sealer, opener) = self.halves(&welcome.session_id, welcome.version, cipher, datagram);
        Ok(Established { welcome, cipher, sealer, opener })
    }

    /// The datagrams of the session that was welcomed, if the gateway has a channel for them. The
    /// other end is at the address of the stream, with the port of the welcome.
    pub fn channel(&self, welcome: &Welcome) -> Option<Channel> {
        let offer = welcome.datagram.as_ref().filter(|offer| offer.port != 0)?;
        let (cipher, datagram) = self.agreed(welcome).ok()?;
        let chain = self.root.chain(&welcome.session_id, welcome.version, cipher, datagram);
        Some(Channel::new(datagram?, offer.index, &chain, Direction::ClientToServer))
    }

    /// The ciphers that the gateway chose for stream and datagrams, if they and the version were
    /// offered to it.
    fn agreed(
        &self,
        welcome: &Welcome,
    ) -> Result<(CipherId, Option<DatagramCipher>), OpeningError> {
        let (low, high) = self.offer.versions;
        let cipher = CipherId::from_wire(welcome.cipher)
            .filter(|c| self.offer.ciphers.contains(&c.wire()))
            .filter(|_| (low..=high).contains(&welcome.version))
            .ok_or(OpeningError::NotOffered { version: welcome.version, cipher: welcome.cipher })?;
        let offered = |number: u8| {
            let cipher = DatagramCipher::from_wire(number);
            cipher.filter(|_| self.offer.datagrams.contains(&number)).ok_or(OpeningError::Datagrams)
        };
        let chosen = welcome.datagram.as_ref().map(|offer| offered(offer.cipher)).transpose()?;
        match self.resuming {
            Some(_) if chosen != self.resumed_datagram() => Err(OpeningError::Datagrams),
            Some(_) | None => Ok((cipher, chosen)),
        }
    }

    /// The datagram cipher of a resume, which is known before the answer.
    fn resumed_datagram(&self) -> Option<DatagramCipher> {
        self.offer.datagrams.first().and_then(|&number| DatagramCipher::from_wire(number))
    }

    fn halves(
        &self,
        session_id: &[u8; 16],
        version: u8,
        cipher: CipherId,
        datagram: Option<DatagramCipher>,
    ) -> (Sealer, Opener) {
        let chain = self.root.chain(session_id, version, cipher, datagram);
        (
            Sealer::new(cipher, &chain, Direction::ClientToServer),
            Opener::new(cipher, chain, Direction::ServerToClient),
        )
    }
}

impl std::fmt::Debug for Resumable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resumable").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}
