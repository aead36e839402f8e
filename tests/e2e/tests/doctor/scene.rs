//! A gateway with a name, a client that was invited, and what `doctor` says there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ClientNode, GatewayNode, Lab, Node, Programs, Ran};
use serde::Deserialize;

/// Longer than all of its time limits together.
const PATIENCE: Duration = Duration::from_secs(80);
pub(crate) const NAME: &str = "gateway.lab.test";
const FAILED: i32 = 1;

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) programs: Programs,
    pub(crate) gateway: GatewayNode,
    pub(crate) client: ClientNode,
}

/// What `doctor --json` prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Examination {
    pub(crate) findings: Vec<Finding>,
    pub(crate) checks: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Finding {
    pub(crate) cause: String,
    pub(crate) detail: String,
    pub(crate) remedy: String,
}

impl Scene {
    /// In which nothing is wrong.
    pub(crate) fn new() -> Result<Scene> {
        let lab = Lab::new()?;
        let programs = Programs::find()?;
        let mut gateway = GatewayNode::new(&lab, &programs);
        gateway.init(NAME)?;
        gateway.start()?;
        let client = ClientNode::new(&lab, 0, &programs)?;
        client.import(&gateway.invite("alice")?.link)?;
        let scene = Scene { lab, programs, gateway, client };
        scene.expect_healthy("at first")?;
        Ok(scene)
    }

    /// Runs `doctor` with these options.
    pub(crate) fn doctor(&self, options: &[&str]) -> Result<Ran> {
        let words = [&["doctor"], options].concat();
        self.client.node.run_with(&self.client.words(&words), "", PATIENCE)
    }

    fn examine(&self) -> Result<(Examination, Ran)> {
        let ran = self.doctor(&["--json"])?;
        let examination = serde_json::from_str(&ran.stdout).with_context(|| ran.to_string())?;
        Ok((examination, ran))
    }

    pub(crate) fn expect_healthy(&self, when: &str) -> Result<()> {
        let (Examination { findings, checks }, ran) = self.examine()?;
        ensure!(findings.is_empty() && ran.status.success(), "{when}: {findings:#?}\n{checks:#?}");
        let is_known = |check: &&serde_json::Value| check["result"] == "ok";
        ensure!(checks.iter().filter(is_known).count() >= 6, "{when}: {checks:#?}");
        Ok(())
    }

    /// While connected, the tunnel is looked at.
    pub(crate) fn expect_connected(&self) -> Result<()> {
        let (Examination { findings, checks }, ran) = self.examine()?;
        let looked = |check: &serde_json::Value| {
            check["check"] == "internet in the tunnel" && check["result"] == "ok"
        };
        ensure!(findings.is_empty() && checks.iter().any(looked), "{findings:#?}\n{checks:#?}");
        ran.ok().map(drop)
    }

    /// The first finding is this one, and says these words; so does its remedy.
    pub(crate) fn expect(&self, cause: &str, detail: &[&str], remedy: &[&str]) -> Result<()> {
        let (Examination { findings, checks }, ran) = self.examine()?;
        let seen = || format!("{findings:#?}\n{checks:#?}");
        let first = findings.first().with_context(seen)?;
        ensure!(first.cause == cause, "{cause} is not the first finding: {}", seen());
        for word in detail {
            ensure!(first.detail.contains(word), "{word:?} is not in the detail: {}", seen());
        }
        for word in remedy {
            ensure!(first.remedy.contains(word), "{word:?} is not in the remedy: {}", seen());
        }
        let code = if cause == "udp-blocked" { 0 } else { FAILED };
        ensure!(ran.code() == code, "{ran}");
        Ok(())
    }
}

/// Makes a fault on a machine by one chain of a table for each of these: hook, and rules.
pub(crate) fn fault(node: &Node, chains: &[(&str, &str)]) -> Result<()> {
    let chain = |(index, (hook, rules)): (usize, &(&str, &str))| {
        format!("chain fault{index} {{\n type filter hook {hook} priority -5\n {rules}\n }}\n")
    };
    let chains: String = chains.iter().enumerate().map(chain).collect();
    node.nft(&format!("table inet fault {{\n {chains} }}\n"))
}

/// Ends it.
pub(crate) fn heal(node: &Node) -> Result<()> {
    node.nft("delete table inet fault\n")
}
