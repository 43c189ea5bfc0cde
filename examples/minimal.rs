//! The smallest forwarder: for a second, what the first port receives leaves by the second, its MAC addresses swapped.
//!
//! Runs on two software models, or on the two devices that it is given: `minimal 0000:01:10.0 0000:01:10.2`.
use std::time::{Duration, Instant};
use vfring::{Burst, Mempool, Port, PortConfig, Result, Started};

fn main() -> Result<()> {
    let spec = |n, model: &str| std::env::args().nth(n).unwrap_or(model.into()).parse();
    let from = Port::open(&spec(1, "sim:igbvf?wire=gen")?, PortConfig::new().queues(1, 1))?;
    let to = Port::open(&spec(2, "sim:igbvf?wire=sink")?, PortConfig::new().queues(1, 1))?;
    let pool = Mempool::builder().buffers(4096).on(&[&from, &to])?;
    let Started { control: from, mut rx, .. } = from.start(&pool)?;
    let Started { control: to, mut tx, .. } = to.start(&pool)?;
    let _services = [from.spawn()?, to.spawn()?]; // look after mailbox, link and resets
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    let (mut sent, end) = (0, Instant::now() + Duration::from_secs(1));
    while Instant::now() < end {
        if rx[0].burst(&mut cache, &mut burst) == 0 {
            std::thread::yield_now(); // not needed by a thread that has a core to itself
        }
        for packet in &mut burst {
            if let Some(macs) = packet.first_chunk_mut::<12>() {
                macs.rotate_left(6); // destination and source change places
            }
        }
        sent += tx[0].burst(&mut cache, &mut burst);
        cache.free(&mut burst); // what did not fit
    }
    println!("forwarded {sent} packets");
    Ok(())
}
