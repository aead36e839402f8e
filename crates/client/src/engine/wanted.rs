//! What a session is to be like: the settings, and what was asked for this time.

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon::Connect;
use cipherwall_netcfg::Kept;
use clap::ValueEnum;
use ipnet::IpNet;

use super::{Answer, Exceptions};
use crate::{
    cli::coded,
    keyring,
    profile::{Profile, Profiles},
    settings::{self, CipherChoice, Settings, TransportChoice},
};

/// What a session is to be like.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// As it was asked for, to be asked for again after a crash.
    pub(crate) request: Connect,
    /// The profile to connect with.
    pub(crate) profile: Profile,
    /// The cipher to offer.
    pub(crate) cipher: CipherChoice,
    /// Whether packets shall go in datagrams.
    pub(crate) transport: TransportChoice,
    /// What stays outside of the tunnel.
    pub(crate) exceptions: Exceptions,
    /// If any, the only networks that go through the tunnel.
    pub(crate) only: Vec<IpNet>,
    /// Instead of the gateway's MTU, in bytes.
    pub(crate) mtu: Option<u16>,
    /// Whether a resume is hinted at in TLS early data.
    pub(crate) early_data: bool,
    /// Whether the first connection is tried again and again, since nobody is there to read why it
    /// failed.
    pub(crate) insist: bool,
    /// Who is to be told when it is connected, or why not.
    pub(crate) answer: Option<Answer>,
}

impl Wanted {
    /// From what was asked for and, for what was not, the settings.
    ///
    /// # Errors
    /// There is no such profile, or a choice makes no sense; with exit code.
    pub(crate) fn new(
        request: &Connect,
        settings: &Settings,
        profiles: &Profiles,
    ) -> anyhow::Result<Wanted> {
        let cipher = chosen(request.cipher.as_deref(), settings.cipher)?;
        let transport = chosen(request.transport.as_deref(), settings.transport)?;
        if !cipher.goes_with(transport) {
            return Err(Failure::usage(
                "aes-256-cfb-hmac-sha256 is a cipher for datagrams only: leave --transport out, or \
                 choose another cipher",
            )
            .into());
        }
        let mut profile = profiles
            .choose(request.profile.as_deref(), settings.default_profile.as_deref())
            .map_err(coded)?;
        profile.endpoints.retain(|endpoint| transport.takes(endpoint.transport));
        if profile.endpoints.is_empty() {
            let (name, wanted) = (&profile.name, settings::name(transport));
            return Err(Failure::usage(format!(
                "profile {name} has no endpoint for {wanted}: leave --transport {wanted} out, or \
                 add one with: cipherwall profile endpoint add {name} HOST:PORT --transport {wanted}"
            ))
            .into());
        }
        if let Some(login) = &request.login {
            profile.prehash = Some(keyring::secret(&login.0)?);
        }
        let keep = request.keep.iter();
        let keep = keep.map(|kept| Kept { local: kept.local, peer: kept.peer }).collect();
        let exceptions = Exceptions {
            allow_lan: settings.allow_lan && !request.no_lan,
            direct: settings.direct.clone(),
            keep,
        };
        Ok(Wanted {
            request: Connect {
                profile: Some(profile.name.clone()),
                // not for the disk
                login: None,
                ..request.clone()
            },
            profile,
            cipher,
            transport,
            exceptions,
            only: settings.only.clone(),
            mtu: settings.mtu,
            early_data: settings.early_data || request.early_data,
            insist: false,
            answer: None,
        })
    }

    /// What stays outside: where only some networks go through the tunnel, all others.
    pub(crate) fn exceptions(&self) -> Exceptions {
        let mut exceptions = self.exceptions.clone();
        if !self.only.is_empty() {
            exceptions.direct = crate::split::all_but(&self.only);
        }
        exceptions
    }
}

fn chosen<T: ValueEnum>(asked: Option<&str>, setting: T) -> anyhow::Result<T> {
    match asked {
        None => Ok(setting),
        Some(name) => T::from_str(name, false)
            .map_err(|error| Failure::usage(format!("{name}: {error}")).into()),
    }
}
