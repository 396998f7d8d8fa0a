//! The queue before the slots: bounded, first come first served for each client, clients in turn.

use super::request::{Event, Request};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// Who asks, as far as fairness is concerned.
pub type Client = Option<IpAddr>;

/// A request on its way to a slot.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    /// The number of the answer within its call.
    pub(crate) answer: usize,
    pub(crate) events: UnboundedSender<(usize, Event)>,
    pub(crate) arrived: Instant,
}

/// One in so many places is not for a client who has all others.
const RESERVED: usize = 8;

/// Jobs by client; the client at the front is served next.
#[derive(Debug)]
pub(crate) struct Queue {
    clients: VecDeque<(Client, VecDeque<Job>)>,
    len: usize,
    capacity: usize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { clients: VecDeque::new(), len: 0, capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds all jobs of a call, or none when they do not fit. One client never has all of a queue: an eighth of it
    /// is for others.
    pub(crate) fn push(&mut self, client: Client, jobs: Vec<Job>) -> Result<(), usize> {
        self.prune();
        let own = self.clients.iter().find(|(known, _)| *known == client);
        let own = own.map_or(0, |(_, waiting)| waiting.len());
        let most = self.capacity - self.capacity / RESERVED;
        let is_alone = own == self.len && own > 0;
        if self.len + jobs.len() > self.capacity || is_alone && own + jobs.len() > most {
            return Err(self.len);
        }
        self.len += jobs.len();
        match self.clients.iter_mut().find(|(known, _)| *known == client) {
            Some((_, waiting)) => waiting.extend(jobs),
            None => self.clients.push_back((client, jobs.into())),
        }
        Ok(())
    }

    /// The next job that `may_start`. A client whose first job may not is passed over, not its turn lost.
    pub(crate) fn pop(&mut self, mut may_start: impl FnMut(&Job) -> bool) -> Option<Job> {
        let ready = |(_, jobs): &(Client, VecDeque<Job>)| jobs.front().is_some_and(&mut may_start);
        let index = self.clients.iter().position(ready)?;
        let (client, mut jobs) = self.clients.remove(index)?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.clients.push_back((client, jobs));
        }
        self.len -= usize::from(job.is_some());
        job
    }

    /// Forgets jobs that nobody waits for any more; returns how many.
    pub(crate) fn prune(&mut self) -> usize {
        let before = self.len;
        for (_, jobs) in &mut self.clients {
            jobs.retain(|job| !job.events.is_closed());
        }
        self.clients.retain(|(_, jobs)| !jobs.is_empty());
        self.len = self.clients.iter().map(|(_, jobs)| jobs.len()).sum();
        before - self.len
    }

    /// Empties the queue.
    pub(crate) fn drain(&mut self) -> Vec<Job> {
        self.len = 0;
        self.clients.drain(..).flat_map(|(_, jobs)| jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use trilut_runtime::SamplerOptions;

    type Receiver = UnboundedReceiver<(usize, Event)>;

    fn job(answer: usize) -> (Job, Receiver) {
        let (events, receiver) = unbounded_channel();
        let request = Request {
            prompt: vec![1],
            max_tokens: 1,
            sampling: SamplerOptions::greedy(),
            penalties: Default::default(),
            bias: Vec::new(),
            stop: Vec::new(),
            logprobs: None,
            constraint: None,
        };
        (Job { request, answer, events, arrived: Instant::now() }, receiver)
    }

    fn client(last: u8) -> Client {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn order(queue: &mut Queue) -> Vec<usize> {
        std::iter::from_fn(|| queue.pop(|_| true)).map(|job| job.answer).collect()
    }

    #[test]
    fn clients_take_turns() {
        let mut queue = Queue::new(8);
        let (jobs, _receivers): (Vec<_>, Vec<_>) = (0..5).map(job).unzip();
        let mut jobs = jobs.into_iter();
        queue.push(client(1), jobs.by_ref().take(3).collect()).unwrap();
        queue.push(client(2), jobs.collect()).unwrap();
        assert_eq!(queue.len(), 5);
        assert_eq!(order(&mut queue), [0, 3, 1, 4, 2]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_as_a_whole() {
        let mut queue = Queue::new(3);
        let (jobs, _receivers): (Vec<_>, Vec<_>) = (0..6).map(job).unzip();
        let mut jobs = jobs.into_iter();
        queue.push(None, jobs.by_ref().take(2).collect()).unwrap();
        assert_eq!(queue.push(None, jobs.by_ref().take(2).collect()), Err(2));
        queue.push(None, jobs.by_ref().take(1).collect()).unwrap();
        assert_eq!(order(&mut queue), [0, 1, 4]);
    }

    #[test]
    fn one_client_leaves_room_for_others() {
        let mut queue = Queue::new(8);
        let (jobs, _receivers): (Vec<_>, Vec<_>) = (0..10).map(job).unzip();
        let mut jobs = jobs.into_iter();
        queue.push(client(1), jobs.by_ref().take(7).collect()).unwrap();
        assert_eq!(queue.push(client(1), jobs.by_ref().take(1).collect()), Err(7));
        queue.push(client(2), jobs.by_ref().take(1).collect()).unwrap();
        assert_eq!(queue.push(client(3), jobs.collect()), Err(8));
    }

    #[test]
    fn a_job_that_must_wait_lets_other_clients_pass() {
        let mut queue = Queue::new(3);
        let (jobs, _receivers): (Vec<_>, Vec<_>) = (0..2).map(job).unzip();
        for (last, job) in (0u8..).zip(jobs) {
            queue.push(client(last), vec![job]).unwrap();
        }
        assert_eq!(queue.pop(|job| job.answer != 0).unwrap().answer, 1);
        assert!(queue.pop(|job| job.answer != 0).is_none());
        assert_eq!(order(&mut queue), [0]);
    }

    #[test]
    fn jobs_that_nobody_waits_for_make_room() {
        let mut queue = Queue::new(2);
        let (jobs, mut receivers): (Vec<_>, Vec<_>) = (0..3).map(job).unzip();
        let mut jobs = jobs.into_iter();
        queue.push(None, jobs.by_ref().take(2).collect()).unwrap();
        receivers.remove(0);
        assert_eq!(queue.prune(), 1);
        queue.push(None, jobs.collect()).unwrap();
        assert_eq!(order(&mut queue), [1, 2]);
    }
}
