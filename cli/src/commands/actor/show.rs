//! `abax actor show`

use crate::args::{ActorShow, Format};
use crate::client::Client;

pub(crate) async fn run(client: &Client, format: Format, args: &ActorShow) -> anyhow::Result<()> {
    super::print_actor(format, &client.actor(&args.actor).await?)
}
