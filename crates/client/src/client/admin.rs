//! Looking into the broker, and telling it what to do.

use super::error::Error;
use super::link::{control, Ask};
use super::route::Wanted;
use super::subscribe::Subscription;
use super::table::Progress;
use super::Client;
use ganger_protocol::admin::{
    AdminProgress, AdminReply, AdminRequest, BrokerStats, ClientInfo, LeaseInfo, Topic,
};
use ganger_protocol::{Frame, Pattern};

/// A snapshot that was written or read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name in the broker's home.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Snapshots that were tried before it and refused, and why.
    pub refused: Vec<String>,
}

/// What an audit of the region found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// Entries that were looked at.
    pub entries: u64,
    /// One sentence per broken invariant; none if all is sound.
    pub problems: Vec<String>,
}

/// Takes the fields of the variant that was expected.
macro_rules! expect {
    ($reply:expr, $variant:ident { $($field:ident),* }) => {
        match $reply {
            AdminReply::$variant { $($field),* } => ($($field),*),
            other => return Err(Error::protocol(format!("{other:?} to another question"))),
        }
    };
}

/// # Administration
impl Client {
    /// The channels, with those who subscribed to them, in the order of their patterns: those whose
    /// patterns begin so.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// for topic in client.topics("").await? {
    ///     let lag = topic.subscribers.iter().map(|subscriber| subscriber.lag).max();
    ///     println!("{}: {} published, {lag:?} behind at most", topic.pattern, topic.published);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn topics(&self, prefix: &str) -> Result<Vec<Topic>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let prefix = prefix.to_owned();
            let reply = self.admin(AdminRequest::Topics { prefix, after }).await?;
            let (topics, next) = expect!(reply, Topics { topics, next });
            all.extend(topics);
            match next {
                None => return Ok(all),
                next => after = next,
            }
        }
    }

    /// The connections, in the order they were made.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// for client in client.clients().await? {
    ///     println!("{} {} (process {})", client.connection, client.name, client.pid);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn clients(&self) -> Result<Vec<ClientInfo>, Error> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let reply = self.admin(AdminRequest::Clients { after }).await?;
            let (clients, next) = expect!(reply, Clients { clients, next });
            all.extend(clients);
            match next {
                None => return Ok(all),
                Some(next) => after = next,
            }
        }
    }

    /// The leases, in the order of their names: those whose names begin so.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// for lease in client.leases("").await? {
    ///     println!("{}: {} wait", lease.name, lease.waiting);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn leases(&self, prefix: &str) -> Result<Vec<LeaseInfo>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let prefix = prefix.to_owned();
            let reply = self.admin(AdminRequest::Leases { prefix, after }).await?;
            let (leases, next) = expect!(reply, Leases { leases, next });
            all.extend(leases);
            match next {
                None => return Ok(all),
                next => after = next,
            }
        }
    }

    /// The broker's numbers.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// println!("up for {} s", client.stats().await?.uptime_ms / 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stats(&self) -> Result<BrokerStats, Error> {
        let reply = self.admin(AdminRequest::Stats {}).await?;
        Ok(*expect!(reply, Stats { stats }))
    }

    /// All counters as Prometheus text.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// print!("{}", client.metrics().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn metrics(&self) -> Result<String, Error> {
        let reply = self.admin(AdminRequest::Metrics {}).await?;
        Ok(expect!(reply, Metrics { text }))
    }

    /// Every message of a pattern as it goes through, without being one of its subscribers: it
    /// counts for nothing, delays nothing, and takes nothing from queue groups.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let mut all = client.tap(">").await?;
    /// while let Some(message) = all.next_message().await {
    ///     println!("{message:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn tap(&self, pattern: &str) -> Result<Subscription, Error> {
        pattern.parse::<Pattern>()?;
        self.listen(Wanted::Tap(pattern.to_owned()), false).await
    }

    /// Makes the broker write the region to a file in its home. `progress` is told how far it has
    /// come, now and then; it must not block. There is no time limit.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let written = client.snapshot(|far| println!("{} of {}", far.done, far.total)).await?;
    /// println!("{} has {} entries", written.name, written.entries);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn snapshot(
        &self,
        progress: impl FnMut(AdminProgress) + Send + 'static,
    ) -> Result<SnapshotInfo, Error> {
        let request = AdminRequest::Snapshot {};
        self.admin_slowly(request, Some(Box::new(progress)))
            .await
            .and_then(snapshot)
    }

    /// Makes the broker read a snapshot into the region: this one, or the newest sound one. As for
    /// the rest, see [`snapshot`](Self::snapshot).
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let read = client.restore(None, |_| {}).await?;
    /// for refused in read.refused {
    ///     println!("not used: {refused}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn restore(
        &self,
        name: Option<&str>,
        progress: impl FnMut(AdminProgress) + Send + 'static,
    ) -> Result<SnapshotInfo, Error> {
        let name = name.map(str::to_owned);
        let request = AdminRequest::Restore { name };
        self.admin_slowly(request, Some(Box::new(progress)))
            .await
            .and_then(snapshot)
    }

    /// Makes the broker check every invariant of the region. There is no time limit.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// assert!(client.audit().await?.problems.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn audit(&self) -> Result<AuditReport, Error> {
        let reply = self.admin_slowly(AdminRequest::Audit {}, None).await?;
        let (entries, problems) = expect!(reply, Audit { entries, problems });
        Ok(AuditReport { entries, problems })
    }

    /// Ends a connection; `false` if there is none of this number.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let is_gone = client.disconnect(17).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn disconnect(&self, connection: u64) -> Result<bool, Error> {
        let reply = self.admin(AdminRequest::Disconnect { connection }).await?;
        Ok(expect!(reply, Done { done }))
    }

    async fn admin(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        let write = |id, out: &mut _| control(id, &request, out);
        answer(self.link().call(self.ask(), write).await?)
    }

    /// For what may take long.
    async fn admin_slowly(
        &self,
        request: AdminRequest,
        progress: Option<Progress>,
    ) -> Result<AdminReply, Error> {
        let ask = Ask {
            limit: None,
            cancel: false,
        };
        let write = |id, out: &mut _| control(id, &request, out);
        answer(self.link().call_with(ask, progress, write).await?)
    }
}

fn answer(frame: Frame) -> Result<AdminReply, Error> {
    Ok(frame.body()?)
}

fn snapshot(reply: AdminReply) -> Result<SnapshotInfo, Error> {
    let (name, entries, bytes, refused) = expect!(
        reply,
        Snapshot {
            name,
            entries,
            bytes,
            refused
        }
    );
    Ok(SnapshotInfo {
        name,
        entries,
        bytes,
        refused,
    })
}
