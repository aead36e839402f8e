//! The gateway's side of the opening: from a valid knock to the tunnel.
//!
//! The gateway looks a [`Demand`] up (data base, Argon2: slow things that do not belong here) and
//! answers with [`Opening::salt`], [`Opening::welcome`] or [`Opening::refuse`].

use crate::{
    VERSION,
    cipher::{CipherId, DatagramCipher},
    datagram::Channel,
    device::{self, Purpose, ResumeSignature},
    keys::{Direction, Proof, Root},
    message::{
        self, ClientMessage, Collector, DatagramOffer, GatewayMessage, MessageError, RefusalCode,
        Refused, Reply, Request, Welcome,
    },
    record::{Opener, Sealer},
};

/// How many requests a connection may make before it is closed.
pub const TRIES: u32 = 3;

/// So many characters of a client's name go into the log.
const PROGRAM_MAX: usize = 64;

/// What a client wants, checked as far as that needs no data base: versions and ciphers agree,
/// the signature is that of the device named.
#[derive(Debug)]
pub enum Demand {
    /// Tell the salt of this user.
    Salt {
        /// The user name as given.
        user: String,
    },
    /// Let this user in on this device.
    Login {
        /// The user name as given.
        user: String,
        /// The pre-hash of the password.
        prehash: [u8; 32],
        /// The device's public key.
        device: [u8; 32],
    },
    /// Let in whoever has this enrolment secret, on this device.
    Enrol {
        /// The secret.
        secret: [u8; 16],
        /// The device's public key.
        device: [u8; 32],
        /// A password for a user who has none.
        prehash: Option<[u8; 32]>,
    },
    /// Let the session of this token go on, if the signature is that of its device.
    Resume {
        /// The token.
        token: [u8; 16],
        /// To be checked against the device of the session.
        signature: ResumeSignature,
    },
    /// Answer with [`Opening::refuse`]: nothing to look up.
    Refuse(Refused),
}

/// Why a connection that knocked rightly is closed all the same. Always the client's doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// Not a control message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// More requests than [`TRIES`].
    #[error("more than {TRIES} requests on one connection")]
    TooManyTries,
}

/// The gateway's side of one opening.
pub struct Opening {
    root: Root,
    proof: Proof,
    collector: Collector,
    aes_hardware: bool,
    cipher: CipherId,
    datagram: Option<DatagramCipher>,
    program: String,
    tries: u32,
    resuming: bool,
}

/// A tunnel as the gateway has it.
#[derive(Debug)]
pub struct Established {
    /// Seals what goes to the client.
    pub sealer: Sealer,
    /// Opens what comes from it.
    pub opener: Opener,
    /// The datagrams beside them, if `Welcome` has offered a channel.
    pub datagram: Option<Channel>,
}

impl Opening {
    /// For a connection whose opener was valid. `aes_hardware`: whether AES is fast here.
    pub fn new(root: Root, aes_hardware: bool) -> Self {
        Self {
            proof: root.proof(),
            root,
            collector: Collector::default(),
            aes_hardware,
            cipher: CipherId::ChaCha20Poly1305,
            datagram: None,
            program: String::new(),
            tries: 0,
            resuming: false,
        }
    }

    /// The cipher agreed with the client's last request.
    pub fn cipher(&self) -> CipherId {
        self.cipher
    }

    /// The cipher for datagrams, if the client wants some and one that it offers is known.
    pub fn datagram_cipher(&self) -> Option<DatagramCipher> {
        self.datagram
    }

    /// What the client says it is: at most 64 printable characters of its choice.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether the client has asked to resume: tunnel records follow its request, so that nothing
    /// can come of this connection once that is refused.
    pub fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// Takes the plaintext of one TLS record (the first one without the opener); `None` while the
    /// request is not complete.
    pub fn handle_record(&mut self, plaintext: &[u8]) -> Result<Option<Demand>, OpeningError> {
        if plaintext.is_empty() {
            return Ok(None);
        }
        let Some(body) = self.collector.push(plaintext)? else {
            return Ok(None);
        };
        self.tries += 1;
        if self.tries > TRIES {
            return Err(OpeningError::TooManyTries);
        }
        // the offer first: a later version's request may be one that cannot be read here
        let ClientMessage::<rmpv::Value> { offer, request } = message::unpack(&body)?;
        self.resuming = request["type"].as_str() == Some("resume");
        let (low, high) = offer.versions;
        let cipher = CipherId::choose(&offer.ciphers, self.aes_hardware);
        let printable = offer.program.chars().filter(|c| !c.is_control());
        self.program = printable.take(PROGRAM_MAX).collect();
        let refused = Refused::new(RefusalCode::Version);
        if !(low..=high).contains(&VERSION) {
            let versions = Some((VERSION, VERSION));
            return Ok(Some(Demand::Refuse(Refused { versions, ..refused })));
        }
        let Some(cipher) = cipher else {
            return Ok(Some(Demand::Refuse(refused)));
        };
        self.cipher = cipher;
        self.datagram = DatagramCipher::choose(&offer.datagrams, self.aes_hardware);
        // its records follow at once, with keys that depend on the cipher
        let unclear = self.datagram.is_none() || offer.datagrams.len() > 1;
        if self.resuming && !offer.datagrams.is_empty() && unclear {
            return Ok(Some(Demand::Refuse(refused)));
        }
        let message: ClientMessage = message::unpack(&body)?;
        Ok(Some(self.demand(message.request)))
    }

    fn demand(&self, request: Request) -> Demand {
        let signed =
            |public: &[u8; 32], purpose, sig| device::verify(public, purpose, &self.proof, sig);
        match request {
            Request::GetSalt { user } => Demand::Salt { user },
            Request::Login(login) if signed(&login.device, Purpose::Login, &login.sig) => {
                Demand::Login {
                    user: login.user,
                    prehash: login.prehash.into_array(),
                    device: login.device.into_array(),
                }
            }
            Request::Enrol(enrol) if signed(&enrol.device, Purpose::Enrol, &enrol.sig) => {
                Demand::Enrol {
                    secret: enrol.secret.into_array(),
                    device: enrol.device.into_array(),
                    prehash: enrol.prehash.map(|prehash| prehash.into_array()),
                }
            }
            Request::Resume(resume) => {
                let (proof, signature) = (self.proof.clone(), resume.sig.into_array());
                let signature = ResumeSignature { proof, signature };
                Demand::Resume { token: resume.token.into_array(), signature }
            }
            Request::Login(_) | Request::Enrol(_) => {
                Demand::Refuse(Refused::new(RefusalCode::Rejected))
            }
        }
    }

    /// The bytes that tell a salt.
    pub fn salt(&self, salt: [u8; 16]) -> Vec<u8> {
        reply(Reply::Salt { salt: salt.into() })
    }

    /// The bytes that refuse.
    pub fn refuse(&self, refused: Refused) -> Vec<u8> {
        reply(Reply::Refused(refused))
    }

    /// The bytes that let the client in, to be sent as the last TLS record, and the tunnel that
    /// begins behind them. `version` and `cipher` of `welcome` are set here, and the cipher of its
    /// `datagram`; that is left out if the client has not asked for datagrams.
    pub fn welcome(self, mut welcome: Welcome) -> (Vec<u8>, Established) {
        welcome.version = VERSION;
        welcome.cipher = self.cipher.wire();
        welcome.datagram = self.datagram.and_then(|cipher| {
            // a client that resumes has chosen its keys already
            let none = self.resuming.then(DatagramOffer::none);
            let offer = welcome.datagram.take().or(none)?;
            Some(DatagramOffer { cipher: cipher.wire(), ..offer })
        });
        let datagram = self.datagram.filter(|_| welcome.datagram.is_some());
        let chain = self.root.chain(&welcome.session_id, VERSION, self.cipher, datagram);
        let channel = |cipher| {
            let offer = welcome.datagram.as_ref().filter(|offer| offer.port != 0)?;
            Some(Channel::new(cipher, offer.index, &chain, Direction::ServerToClient))
        };
        let established = Established {
            datagram: datagram.and_then(channel),
            sealer: Sealer::new(self.cipher, &chain, Direction::ServerToClient),
            opener: Opener::new(self.cipher, chain, Direction::ClientToServer),
        };
        (reply(Reply::Welcome(Box::new(welcome))), established)
    }
}

fn reply(reply: Reply) -> Vec<u8> {
    message::encode(&GatewayMessage { reply })
}
