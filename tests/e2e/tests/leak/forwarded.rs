//! What the client forwards for containers and virtual machines is under the same policy.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Lab, LeakWatch, Programs, Source, address, until};

use crate::scene::{Mode, Scene, in_each_mode};

const A_WHILE: Duration = Duration::from_secs(3);

in_each_mode! {
    a_container_uses_the_tunnel_and_nothing_else: foreground Foreground, daemon Daemon, lockdown Lockdown;
}

fn a_container_uses_the_tunnel_and_nothing_else(programs: &Programs, mode: Mode) -> Result<()> {
    let mut container = None;
    let mut scene = Scene::watched(Lab::new()?, programs, mode, &[], |lab| {
        let source = container.insert(lab.add_container()?);
        LeakWatch::start_with(lab, source, source.kinds())
    })?;
    let Some(container) = container else { anyhow::bail!("no container") };
    scene.start()?;
    scene.connect()?;
    expect_tunnel(&scene, &container)?;
    scene.lab.cut_path(A_WHILE)?;
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    expect_tunnel(&scene, &container)?;
    scene.crash()?;
    sleep(A_WHILE);
    scene.expect_closed("what a container sends, after kill -9")?;
    scene.start_again()?;
    expect_tunnel(&scene, &container)?;
    scene.end("what a container sends")
}

fn expect_tunnel(scene: &Scene, container: &Source) -> Result<()> {
    let seen = until("a container's page", Duration::from_secs(15), || {
        scene.lab.visitor_address(&container.node, address::WEB.into()).map(Some)
    })?;
    ensure!(seen == address::GATEWAY.to_string(), "the container's address is {seen}");
    Ok(())
}
