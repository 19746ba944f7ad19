//! Messages, requests, a lock and a watch between two clients of a running broker.
//!
//! ```text
//! cargo run --release -- broker &
//! cargo run --release --example messages
//! ```

use ganger_client::{Client, Error, WatchEvent};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_no_broker() => {
            eprintln!("{error}\nStart one with `cargo run --release -- broker`.");
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    // Two processes, usually.
    let (shop, office) = (Client::connect().await?, Client::connect().await?);
    messages(&shop, &office).await?;
    requests(&shop, &office).await?;
    state(&shop, &office).await?;
    lock(&shop, &office).await
}

async fn messages(shop: &Client, office: &Client) -> Result<(), Error> {
    let mut orders = office.subscribe("orders.*").await?;
    shop.publish("orders.new", "7 pears").await?;
    if let Some(message) = orders.next_message().await {
        let text = String::from_utf8_lossy(message.payload());
        println!("message {} on {}: {text}", message.seq(), message.subject());
    }
    Ok(())
}

async fn requests(shop: &Client, office: &Client) -> Result<(), Error> {
    let mut prices = office.respond("price").await?;
    let answering = async {
        match prices.next().await {
            Some(request) => request.reply("3.20").await,
            None => Ok(()),
        }
    };
    let (price, answered) = tokio::join!(shop.request("price", "pears"), answering);
    answered?;
    println!("price: {}", String::from_utf8_lossy(price?.payload()));
    Ok(())
}

async fn state(shop: &Client, office: &Client) -> Result<(), Error> {
    // In the shared memory, straight from here: the broker has no part in it.
    shop.kv()?.set("example:stock", "12")?;
    let mut stock = office.watch("example:stock").await?;
    while let Some(event) = stock.next().await {
        match event {
            WatchEvent::Entry(now) => {
                println!("stock: {}", String::from_utf8_lossy(now.value()));
                shop.kv()?.set("example:stock", "5")?;
            }
            WatchEvent::Change(_, now) => {
                println!("stock is now {}", String::from_utf8_lossy(now.value()));
                break;
            }
            _ => {}
        }
    }
    shop.kv()?.delete("example:stock")?;
    Ok(())
}

async fn lock(shop: &Client, office: &Client) -> Result<(), Error> {
    let lock = shop.lock("example-report").await?;
    let is_free = office.try_lock("example-report").await?.is_some();
    println!(
        "the shop has the lock, token {}; free for the office: {is_free}",
        lock.token()
    );
    lock.release().await
}
