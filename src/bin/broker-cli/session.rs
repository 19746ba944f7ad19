//! What the verbs of one run share: options, output, and the way to the region and the broker.

use crate::arguments::Options;
use crate::failure::Failure;
use crate::output::Output;
use crate::store::Store;
use ganger_client::{Client, ClientBuilder, Error, Home, Kv, KvOptions, Via};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{signal, SignalKind};

/// How long a broker may take to hand the region over, before it is taken for one that stands
/// still.
const HANDOVER: Duration = Duration::from_millis(250);

pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) out: Output,
    /// Made when it is first needed: a `get` does not need it.
    runtime: Option<Runtime>,
    client: Option<Client>,
    kv: Option<Kv>,
    /// Whether the broker has said that it hands over none.
    has_no_region: bool,
    /// Whether the connection is to live on between verbs.
    pub(crate) is_lasting: bool,
}

impl Session {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            out: Output::new(&options),
            options,
            runtime: None,
            client: None,
            kv: None,
            has_no_region: false,
            is_lasting: false,
        }
    }

    /// The same session under other options, for one verb of several.
    pub(crate) fn choose(&mut self, options: Options) {
        let same_place = options.home == self.options.home
            && options.region == self.options.region
            && options.timeout == self.options.timeout;
        if !same_place {
            (self.kv, self.has_no_region) = (None, false);
            self.disconnect();
        }
        self.out = Output::new(&options);
        self.options = options;
    }

    /// Says something of how it is done, to those who want to know.
    pub(crate) fn remark(&self, what: impl FnOnce() -> String) {
        if self.options.verbose {
            crate::failure::complain(&what());
        }
    }

    pub(crate) fn home(&self) -> Home {
        match &self.options.home {
            Some(path) => Home::at(path),
            None => Home::find(),
        }
    }

    /// The keys: in the region if it can be mapped, else through the broker.
    pub(crate) fn store(&mut self) -> Result<Store<'_>, Failure> {
        if !self.options.socket && !self.has_no_region {
            match self.region()? {
                Some(kv) => return Ok(Store::Direct(kv)),
                None => self.has_no_region = true,
            }
        }
        if self.client.is_none() {
            self.remark(|| "through the broker's socket".into());
        }
        let kv = self.client()?.remote_kv();
        Ok(Store::Socket(self.runtime()?, kv))
    }

    /// Standard output, for a while.
    pub(crate) fn take_out(&mut self) -> Output {
        let new = Output::new(&self.options);
        std::mem::replace(&mut self.out, new)
    }

    /// The region, if it can be mapped.
    pub(crate) fn region(&mut self) -> Result<Option<Kv>, Failure> {
        if let Some(kv) = &self.kv {
            return Ok(Some(kv.clone()));
        }
        let options = KvOptions::new().lock_timeout(self.options.timeout);
        let (kv, how) = if let Some(name) = &self.options.region {
            (options.open(name)?, format!("directly, region {name}"))
        } else if self.options.home.is_none() && names_a_region() {
            let how = "directly, the region that the environment names";
            (options.from_env()?, how.to_owned())
        } else {
            let patience = self.options.timeout.min(HANDOVER);
            match Kv::of_home(&self.home(), &options, patience) {
                Ok((kv, Via::Process(pid))) => {
                    let how =
                        format!("directly, though the broker (process {pid}) does not answer");
                    (kv, how)
                }
                Ok((kv, _)) => (kv, "directly, in the broker's region".to_owned()),
                Err(Error::NoRegion) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        self.remark(|| how);
        self.kv = Some(kv.clone());
        Ok(Some(kv))
    }

    /// The connection to the broker.
    pub(crate) fn client(&mut self) -> Result<Client, Failure> {
        if let Some(client) = self.client.take() {
            let limit = self.options.timeout;
            let up = async { Ok(tokio::time::timeout(limit, client.connected()).await) };
            if let Ok(Ok(())) = self.wait(up)? {
                self.client = Some(client.clone());
                return Ok(client);
            }
        }
        let builder = ClientBuilder::new()
            .home(self.home().path())
            .name("broker-cli")
            .patience(Duration::ZERO)
            .timeout(self.options.timeout);
        let limit = self.options.timeout;
        let connecting = async move { tokio::time::timeout(limit, builder.connect()).await };
        let client = self.wait(async move {
            match connecting.await {
                Ok(connected) => Ok(connected?),
                Err(_) => Err(Failure::NoBroker(format!(
                    "the broker said nothing for {limit:?}"
                ))),
            }
        })?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Runs a future to its end, or until we are told to end.
    pub(crate) fn wait<T>(
        &mut self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.runtime()?.block_on(async {
            let told = told_to_end()?;
            tokio::select! {
                done = future => done,
                signal = told => Err(Failure::Signal(signal)),
            }
        })
    }

    /// Ends the connection, and what was sent on it arrives.
    pub(crate) fn close(mut self) {
        self.disconnect();
    }

    pub(crate) fn disconnect(&mut self) {
        if let (Some(client), Some(runtime)) = (self.client.take(), &self.runtime) {
            let limit = self.options.timeout;
            let closing = async { tokio::time::timeout(limit, client.close()).await };
            let _ = runtime.block_on(closing);
        }
    }

    pub(crate) fn runtime(&mut self) -> Result<&Runtime, Failure> {
        if self.runtime.is_none() {
            let mut builder = match self.is_lasting {
                false => Builder::new_current_thread(),
                // Somebody has to look after the connection while nothing is asked.
                true => Builder::new_multi_thread(),
            };
            let runtime = builder.worker_threads(1).enable_all().build();
            let failed = |error| Failure::Failed(format!("no runtime: {error}"));
            self.runtime = Some(runtime.map_err(failed)?);
        }
        let missing = || Failure::Failed("no runtime".into());
        self.runtime.as_ref().ok_or_else(missing)
    }
}

/// Whether a supervisor, or whoever started us, named a region.
fn names_a_region() -> bool {
    let names = [
        ganger_client::REGION_FD_VARIABLE,
        ganger_client::REGION_VARIABLE,
    ];
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    names.into_iter().any(is_set)
}

/// The first of the signals that ask a program to end.
fn told_to_end() -> Result<impl Future<Output = i32>, Failure> {
    let listen = |kind: SignalKind| {
        let failed = |error: io::Error| Failure::Failed(format!("signals: {error}"));
        signal(kind).map_err(failed)
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
        }
    })
}
