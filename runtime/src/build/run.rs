//! RUN: a container on the layers so far, and a layer of what it changed.

use std::io::{self, Read as _};

use crate::container::{
    Container, CreateError, Launcher, LauncherError, Options, StartError, Stdio, WaitError,
};
use crate::image::{Image, Layer, StoreError};
use crate::network::Mode;

use super::stage::State;
use super::{BuildEvent, Builder, StepError};

/// Why a command of `RUN` failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It ran, and said so.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Status {
        /// Its words.
        command: String,
        /// 128 and the signal, where one killed it.
        code: i32,
    },
    /// Memory ran out.
    #[error("The command '{command}' was killed: it used more memory than there is")]
    OutOfMemory {
        /// Its words.
        command: String,
    },
    /// The process that makes containers could not be started.
    #[error("could not start the launcher")]
    Launcher {
        /// Why.
        source: LauncherError,
    },
    /// The layers so far are no image.
    #[error("could not read the image so far")]
    Image {
        /// Why.
        source: StoreError,
    },
    /// No pipe for its output.
    #[error("could not read the output of '{command}'")]
    Output {
        /// Its words.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The container could not be made.
    #[error("could not create a container for '{command}'")]
    Create {
        /// Its words.
        command: String,
        /// Why.
        source: CreateError,
    },
    /// The command could not be started.
    #[error("could not start '{command}'")]
    Start {
        /// Its words.
        command: String,
        /// Why.
        source: StartError,
    },
    /// The container's end is not known.
    #[error("could not wait for '{command}'")]
    Wait {
        /// Its words.
        command: String,
        /// Why.
        source: WaitError,
    },
}

impl Builder<'_> {
    /// Runs `words` on the layers of `state`; the layer of what that changed.
    pub(super) fn run(
        &self,
        state: &State,
        words: Vec<String>,
        env: Vec<(String, String)>,
        network: Mode,
    ) -> Result<Option<Layer>, StepError> {
        let command = words.join(" ");
        let image = Image::draft(state.image_json(), &state.layers)
            .map_err(|source| RunError::Image { source })?;
        let (stdio, mut output) =
            output().map_err(|source| RunError::Output { command: command.clone(), source })?;
        let options = Options {
            entrypoint: Some(words),
            env,
            network,
            ca_bundle: self.options.ca_bundle.clone(),
            ..Options::default()
        };
        let container = Container::create(self.runtime, self.launcher()?, &image, options, stdio)
            .map_err(|source| RunError::Create { command: command.clone(), source })?;
        let outcome = self.follow(&container, &mut output, &command).and_then(|()| {
            let upper = self.runtime.root().join("containers").join(container.id().as_str());
            self.layer_of(&upper.join("upper"))
        });
        // Whatever came of it: what could not be deleted now, the next sweep deletes.
        if let Err(error) = container.delete() {
            tracing::warn!(error = %error, "could not delete the container of a build step");
        }
        outcome
    }

    /// Starts the container and passes its output on until it ends.
    fn follow(
        &self,
        container: &Container,
        output: &mut io::PipeReader,
        command: &str,
    ) -> Result<(), StepError> {
        let command = command.to_owned();
        if let Err(source) = container.start() {
            return Err(RunError::Start { command, source }.into());
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            // Ends with the last process that has the pipe, and all end with the container.
            match output.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => self.progress.event(BuildEvent::Output(&buffer[..read])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(RunError::Output { command, source }.into()),
            }
        }
        let exit = match container.wait() {
            Ok(exit) => exit,
            Err(source) => return Err(RunError::Wait { command, source }.into()),
        };
        match exit.exit_code() {
            0 => Ok(()),
            _ if exit.out_of_memory => Err(RunError::OutOfMemory { command }.into()),
            code => Err(RunError::Status { command, code }.into()),
        }
    }

    fn launcher(&self) -> Result<&Launcher, RunError> {
        if let Some(launcher) = self.options.launcher.as_ref().or(self.launcher.get()) {
            return Ok(launcher);
        }
        let launcher = Launcher::start().map_err(|source| RunError::Launcher { source })?;
        Ok(self.launcher.get_or_init(|| launcher))
    }
}

/// Standard streams for a command: no input, and one pipe for what it says, in its order.
fn output() -> io::Result<(Stdio, io::PipeReader)> {
    let (reader, writer) = io::pipe()?;
    let stdin = std::fs::File::open("/dev/null")?.into();
    let stderr = writer.try_clone()?.into();
    Ok((Stdio::Fds { stdin, stdout: writer.into(), stderr }, reader))
}
