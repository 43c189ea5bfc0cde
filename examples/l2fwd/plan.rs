//! Who does what: receive queues are dealt out to threads, and every thread gets a transmit queue of its own on each
//! port that it sends to, so that no two threads ever share a queue.
#![forbid(unsafe_code)]

/// The work of all threads, and the queues that each port needs for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub threads: Vec<ThreadPlan>,
    /// Receive queues of each port, at least 1.
    pub rx_queues: Vec<u16>,
    /// Transmit queues of each port, at least 1.
    pub tx_queues: Vec<u16>,
}

/// The work of one thread.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ThreadPlan {
    /// The core that the thread is pinned to.
    pub core: Option<usize>,
    /// Receive queues, each with the index in `tx` of where its packets go.
    pub rx: Vec<(Queue, usize)>,
    /// A transmit queue of each port that the thread sends to.
    pub tx: Vec<Queue>,
}

/// A queue of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub port: usize,
    pub number: u16,
}

impl Plan {
    /// Deals `queues` receive queues of every port that receives out to threads. Without `cores` there are as many threads
    /// as queues, and thread n gets queue n of every port. With them there is a thread for each, and the queues are
    /// dealt in equal shares and in order: neighbouring queues of a port go to the same thread, which keeps the number of
    /// transmit queues low.
    pub fn new(to: &[Option<usize>], queues: u16, cores: &[usize]) -> Result<Plan, String> {
        let receiving = || to.iter().enumerate().filter_map(|(port, to)| to.map(|to| (port, to)));
        let of_queue = |number| receiving().map(move |(port, to)| (Queue { port, number }, to));
        let work: Vec<(Queue, usize)> = match cores {
            [] => (0..queues).flat_map(of_queue).collect(),
            _ => {
                receiving().flat_map(|(port, to)| (0..queues).map(move |number| (Queue { port, number }, to))).collect()
            }
        };
        if cores.len() > work.len() {
            return Err(format!(
                "--cores names {} cores and there are {} receive queues; name fewer cores, or give the ports more with --queues",
                cores.len(),
                work.len()
            ));
        }
        let count = if cores.is_empty() { usize::from(queues) } else { cores.len() };
        let mut tx_queues = vec![0; to.len()];
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let mut thread = ThreadPlan { core: cores.get(index).copied(), ..ThreadPlan::default() };
            for &(queue, to) in &work[work.len() * index / count..work.len() * (index + 1) / count] {
                let slot = thread.tx.iter().position(|tx| tx.port == to).unwrap_or_else(|| {
                    thread.tx.push(Queue { port: to, number: tx_queues[to] });
                    tx_queues[to] += 1;
                    thread.tx.len() - 1
                });
                thread.rx.push((queue, slot));
            }
            threads.push(thread);
        }
        let rx_queues = to.iter().map(|to| if to.is_some() { queues } else { 1 }).collect();
        let tx_queues = tx_queues.into_iter().map(|queues| queues.max(1)).collect();
        Ok(Plan { threads, rx_queues, tx_queues })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(port: usize, number: u16) -> Queue {
        Queue { port, number }
    }

    /// No queue has two owners, every receive queue has one, and packets go where the map says.
    fn check(plan: &Plan, to: &[Option<usize>], queues: u16) {
        let rx: Vec<Queue> = plan.threads.iter().flat_map(|t| t.rx.iter().map(|(queue, _)| *queue)).collect();
        let wanted: Vec<Queue> = (0..to.len())
            .filter(|port| to[*port].is_some())
            .flat_map(|port| (0..queues).map(move |number| queue(port, number)))
            .collect();
        let mut sorted = rx.clone();
        sorted.sort_by_key(|queue| (queue.port, queue.number));
        assert_eq!(sorted, wanted);
        let mut tx: Vec<(usize, u16)> =
            plan.threads.iter().flat_map(|t| t.tx.iter().map(|q| (q.port, q.number))).collect();
        let all = tx.len();
        tx.sort();
        tx.dedup();
        assert_eq!(tx.len(), all, "two threads share a transmit queue");
        assert!(tx.iter().all(|(port, number)| *number < plan.tx_queues[*port]));
        for thread in &plan.threads {
            assert!(!thread.rx.is_empty());
            assert!(thread.rx.iter().all(|(queue, slot)| to[queue.port] == Some(thread.tx[*slot].port)));
        }
    }

    #[test]
    fn one_thread_owns_everything() {
        let to = [Some(1), Some(0)];
        let plan = Plan::new(&to, 1, &[]).unwrap();
        check(&plan, &to, 1);
        assert_eq!(plan.threads.len(), 1);
        assert_eq!(plan.threads[0].core, None);
        assert_eq!(plan.threads[0].rx, [(queue(0, 0), 0), (queue(1, 0), 1)]);
        assert_eq!(plan.threads[0].tx, [queue(1, 0), queue(0, 0)]);
    }

    #[test]
    fn without_cores_thread_n_owns_queue_n_of_every_port() {
        let to = [Some(1), Some(0)];
        let plan = Plan::new(&to, 3, &[]).unwrap();
        check(&plan, &to, 3);
        assert_eq!(plan.threads.len(), 3);
        for (n, thread) in (0..).zip(&plan.threads) {
            assert_eq!(thread.rx, [(queue(0, n), 0), (queue(1, n), 1)]);
            assert_eq!(thread.tx, [queue(1, n), queue(0, n)]);
        }
        assert_eq!((plan.rx_queues, plan.tx_queues), (vec![3, 3], vec![3, 3]));
    }

    #[test]
    fn a_thread_per_direction_needs_one_transmit_queue_each() {
        let to = [Some(1), Some(0)];
        let plan = Plan::new(&to, 2, &[2, 3]).unwrap();
        check(&plan, &to, 2);
        assert_eq!((plan.rx_queues, plan.tx_queues), (vec![2, 2], vec![1, 1]));
        assert_eq!(plan.threads.iter().map(|t| t.core).collect::<Vec<_>>(), [Some(2), Some(3)]);
    }

    #[test]
    fn every_shape_is_dealt_out_once() {
        let maps: [&[Option<usize>]; 5] = [
            &[Some(0)],
            &[Some(1), None],
            &[Some(2), Some(2), None],
            &[Some(1), Some(0), Some(3), Some(2)],
            &[Some(1), Some(2), Some(0)],
        ];
        for to in maps {
            for queues in 1..=4 {
                let most = to.iter().flatten().count() * usize::from(queues);
                for threads in 1..=most {
                    let cores: Vec<usize> = (0..threads).collect();
                    check(&Plan::new(to, queues, &cores).unwrap(), to, queues);
                }
                let cores: Vec<usize> = (0..=most).collect();
                let refusal = Plan::new(to, queues, &cores).unwrap_err();
                assert!(refusal.contains(&format!("{} cores and there are {most} receive", most + 1)), "{refusal}");
            }
        }
    }

    #[test]
    fn senders_to_one_port_have_queues_of_their_own() {
        let to = [Some(2), Some(2), None];
        let plan = Plan::new(&to, 1, &[0, 1]).unwrap();
        check(&plan, &to, 1);
        assert_eq!(plan.tx_queues, [1, 1, 2]);
    }
}
