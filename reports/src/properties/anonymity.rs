//! What a coalition of everybody but one server can add up, it adds up: no smaller crowd than the round's comes out.

mod algebra;

#[cfg(test)]
mod tests;

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::{Mixed, Mixture};
use zipnet_core::id::{Digest, PeerId, Round};
use zipnet_core::machine::RequestId;
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use self::algebra::{Sum, eliminate, is_sum_of};
use super::{Property, Seen, Subject};

/// How many headers are remembered. What was mixed under older ones is judged a last time and forgotten.
const HEADERS_MAX: usize = 64;

/// The name of a pad, wherever it is used: its first bytes.
type Pad = [u8; Mixed::HEAD];

/// The place of a header among all that were ever seen.
type Place = u64;

/// The promise as algebra.
///
/// An adversary has every server of a roster but one, the aggregator, the network, and every client that lies. It knows
/// every pad but those between the one server and honest clients, and it sees each envelope and each partial when it is
/// made. What it can add up to a sum of vectors alone, without any pad that it does not know, must be made of whole
/// crowds: under each header, the vectors of all honest clients whose pads are in the first partial of that server.
/// Each server that does not lie is the one server in turn.
///
/// Where a request is sealed a second time, whoever can read both rounds can intersect them, and that is no matter of
/// sums. So a vector whose message was sealed again under another header may not be in any sum that is known.
///
/// What is compared are the bytes that keyrings mix. The property knows nothing of rounds, rosters, floors, promises or
/// registries, beyond who takes part and when it is time to judge.
#[derive(Debug, Default)]
pub struct Anonymity {
    next: Place,
    headers: BTreeMap<Place, Trace>,
    places: BTreeMap<Digest, Place>,
    /// Under which headers each pad was used.
    uses: BTreeSet<(Pad, Place)>,
    /// Headers that have a pad in common, both ways.
    links: BTreeMap<Place, BTreeSet<Place>>,
    /// Headers under which something was made since they were judged.
    unjudged: BTreeSet<Place>,
    /// Who has deviated on purpose, ever.
    liars: BTreeSet<PeerId>,
    names: BTreeMap<PeerId, String>,
    /// By client and request: the header under which it was sealed last.
    sealed: BTreeMap<(PeerId, RequestId), Digest>,
    /// How many finalised rounds had a crowd of each size: the honest participants in the smallest sum that a coalition
    /// against one honest server of the roster has to be content with.
    crowds: BTreeMap<u64, u64>,
}

/// What was mixed under a header.
#[derive(Debug)]
struct Trace {
    digest: Digest,
    round: Round,
    roster: Vec<PeerId>,
    envelopes: Vec<Envelope>,
    partials: Vec<Partial>,
    /// Clients whose message under this header was sealed again under another one.
    again: BTreeSet<PeerId>,
    /// It was finalised or abandoned, as somebody says.
    ended: bool,
    /// Its crowd was counted.
    counted: bool,
}

#[derive(Debug)]
struct Envelope {
    client: PeerId,
    /// Tells vectors of one client under one header apart.
    body: [u8; 32],
    pads: Vec<(PeerId, Pad)>,
}

#[derive(Debug)]
struct Partial {
    server: PeerId,
    aggregate: Digest,
    pads: Vec<(PeerId, Pad)>,
}

/// A vector, as an unknown: whose, and under which header.
#[derive(Clone, Copy, Debug)]
struct Vector {
    client: PeerId,
    place: Place,
}

/// What one coalition can set up about headers that hang together.
#[derive(Debug)]
struct Equations {
    /// Each the sum of pads and vectors, and of the one thing that it was read from.
    sums: Vec<Sum>,
    /// What each was read from.
    sources: Vec<(Source, Place)>,
    vectors: Vec<Vector>,
    pads: Range<usize>,
    /// Of the unknowns: where the vectors are.
    open: Range<usize>,
    /// One whole crowd each.
    crowds: Vec<Sum>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The envelope of a client.
    Envelope(PeerId),
    /// A server's partial for an aggregate.
    Partial(PeerId, Digest),
}

impl Property for Anonymity {
    fn name(&self) -> &'static str {
        "anonymity"
    }

    fn sentence(&self) -> &'static str {
        "One honest server hides who of a round's honest participants wrote what, whatever the others add up."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        if subject.liar && self.liars.insert(subject.peer) {
            // What was kept from it is known to the others from here on.
            self.unjudged.extend(self.headers.keys());
        }
        if seen.begins() {
            self.names.insert(subject.peer, subject.name.clone());
        }
        if seen.begins() || seen.is_gap() {
            // The numbers of requests begin anew.
            self.sealed.retain(|(client, _), _| *client != subject.peer);
        }
        match seen {
            Seen::Mixed(mixed) => self.mixed(subject, mixed),
            Seen::Sealed { request, header } => self.sealed(subject.peer, request, header),
            _ => seen.fact().map_or(Ok(()), |fact| self.told(subject, fact)),
        }
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (self.next == 0).then_some("nothing shows what is mixed")
    }

    fn crowds(&self) -> Option<&BTreeMap<u64, u64>> {
        Some(&self.crowds)
    }
}

impl Anonymity {
    fn mixed(&mut self, subject: &Subject, mixed: &Mixed<'_>) -> Result<(), String> {
        let place = self.place(mixed)?;
        for (_, pad) in mixed.pads {
            self.uses.insert((*pad, place));
            for (_, other) in self.uses.range((*pad, Place::MIN)..=(*pad, Place::MAX)) {
                if *other != place {
                    self.links.entry(place).or_default().insert(*other);
                    self.links.entry(*other).or_default().insert(place);
                }
            }
        }
        self.unjudged.insert(place);
        let trace = self.headers.get_mut(&place).expect("a header has its place as long as it is remembered");
        let pads = mixed.pads.to_vec();
        match mixed.what {
            Mixture::Envelope { .. } => {
                let body = *blake3::hash(mixed.body).as_bytes();
                trace.envelopes.push(Envelope { client: subject.peer, body, pads });
            }
            Mixture::Partial { aggregate } => {
                trace.partials.push(Partial { server: subject.peer, aggregate, pads });
            }
        }
        Ok(())
    }

    /// Where a header is remembered. The oldest one may have to go, and is judged before.
    fn place(&mut self, mixed: &Mixed<'_>) -> Result<Place, String> {
        if let Some(place) = self.places.get(&mixed.digest) {
            return Ok(*place);
        }
        if self.headers.len() == HEADERS_MAX
            && let Some(oldest) = self.headers.keys().next().copied()
        {
            if self.unjudged.contains(&oldest) {
                self.judge(oldest)?;
            }
            self.forget(oldest);
        }
        let place = self.next;
        self.next += 1;
        self.places.insert(mixed.digest, place);
        self.headers.insert(
            place,
            Trace {
                digest: mixed.digest,
                round: mixed.header.round,
                roster: mixed.header.servers.iter().map(|server| server.peer).collect(),
                envelopes: Vec::new(),
                partials: Vec::new(),
                again: BTreeSet::new(),
                ended: false,
                counted: false,
            },
        );
        Ok(place)
    }

    fn forget(&mut self, place: Place) {
        let Some(trace) = self.headers.remove(&place) else { return };
        self.places.remove(&trace.digest);
        self.unjudged.remove(&place);
        for (_, pad) in trace.pads() {
            self.uses.remove(&(*pad, place));
        }
        for other in self.links.remove(&place).unwrap_or_default() {
            if let Some(links) = self.links.get_mut(&other) {
                links.remove(&place);
            }
        }
    }

    fn told(&mut self, subject: &Subject, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::RoundFinalized { end } | Fact::RoundApplied { end } => self.ended(&end.header, true),
            Fact::RoundAbandoned { header, .. } => self.ended(header, false),
            Fact::Published { request, .. } => {
                self.sealed.remove(&(subject.peer, *request));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A round is over: what was made under its header is judged, and what came late under earlier ones.
    fn ended(&mut self, header: &Digest, finalized: bool) -> Result<(), String> {
        let Some(place) = self.places.get(header).copied() else { return Ok(()) };
        let Some(trace) = self.headers.get_mut(&place) else { return Ok(()) };
        trace.ended = true;
        if finalized && !trace.counted {
            trace.counted = true;
            self.count(place);
        }
        let due = self.unjudged.iter().copied().filter(|due| self.headers[due].ended);
        for place in due.collect::<Vec<_>>() {
            self.judge(place)?;
        }
        Ok(())
    }

    /// A client has sealed a request of its publisher.
    fn sealed(&mut self, client: PeerId, request: RequestId, header: Digest) -> Result<(), String> {
        let Some(before) = self.sealed.insert((client, request), header) else { return Ok(()) };
        if before == header || self.liars.contains(&client) {
            return Ok(());
        }
        let Some(place) = self.places.get(&before).copied() else { return Ok(()) };
        if let Some(trace) = self.headers.get_mut(&place) {
            trace.again.insert(client);
        }
        self.judge(place)
    }

    fn count(&mut self, place: Place) {
        let trace = &self.headers[&place];
        let honest = trace.roster.iter().filter(|server| !self.liars.contains(server));
        let crowds = honest.filter_map(|server| self.crowd(trace, server).map(|crowd| crowd.len()));
        if let Some(least) = crowds.min().and_then(|least| u64::try_from(least).ok()) {
            *self.crowds.entry(least).or_default() += 1;
        }
    }

    /// The honest clients whose pads are in the first partial of a server. A client is in it as often as it was taken,
    /// whatever cancels.
    fn crowd(&self, trace: &Trace, server: &PeerId) -> Option<BTreeSet<PeerId>> {
        let first = trace.partials.iter().find(|partial| partial.server == *server)?;
        let clients = first.pads.iter().map(|(client, _)| *client);
        Some(clients.filter(|client| !self.liars.contains(client)).collect())
    }

    /// Judges everything that hangs together with a header.
    fn judge(&mut self, place: Place) -> Result<(), String> {
        let mut together = BTreeSet::from([place]);
        let mut ahead = vec![place];
        while let Some(next) = ahead.pop() {
            ahead
                .extend(self.links.get(&next).into_iter().flatten().filter(|other| together.insert(**other)));
        }
        for place in &together {
            self.unjudged.remove(place);
        }
        let rosters = together.iter().flat_map(|place| &self.headers[place].roster);
        let honest: BTreeSet<&PeerId> = rosters.filter(|server| !self.liars.contains(server)).collect();
        honest.into_iter().try_for_each(|server| self.judge_against(server, &together))
    }

    /// Judges what is known to whoever has all servers but this one.
    fn judge_against(&self, server: &PeerId, together: &BTreeSet<Place>) -> Result<(), String> {
        let equations = self.equations(server, together);
        let known = eliminate(equations.sums.clone(), equations.pads.clone(), equations.open.clone());
        let small = known.iter().filter(|sum| !is_sum_of(sum, &equations.crowds, equations.open.clone()));
        if let Some(sum) = small.min_by_key(|sum| sum.within(equations.open.clone()).count()) {
            return Err(format!(
                "whoever has all servers but {} knows {}, which is not the sum of a crowd: it is {}",
                self.called(server),
                self.shown_vectors(&equations, sum),
                self.shown_sources(&equations, sum),
            ));
        }
        for sum in &known {
            let vectors = sum.within(equations.open.clone()).map(|at| equations.vector(at));
            let again = |vector: &Vector| self.headers[&vector.place].again.contains(&vector.client);
            if let Some(vector) = vectors.into_iter().find(again) {
                return Err(format!(
                    "{} has sealed its message of {} again, and whoever has all servers but {} knows {}: it is {}",
                    self.called(&vector.client),
                    self.headers[&vector.place].round,
                    self.called(server),
                    self.shown_vectors(&equations, sum),
                    self.shown_sources(&equations, sum),
                ));
            }
        }
        Ok(())
    }

    /// What whoever has all servers but this one can write down.
    fn equations(&self, server: &PeerId, together: &BTreeSet<Place>) -> Equations {
        let traces = || together.iter().map(|place| (*place, &self.headers[place]));
        let hidden = self.hidden(server, traces().map(|(_, trace)| trace));
        let mut unknown = hidden.len();
        let mut vectors = Vec::new();
        // By client, header and body: the unknown that stands for the vector.
        let mut named: BTreeMap<(PeerId, Place, [u8; 32]), usize> = BTreeMap::new();
        for (place, trace) in traces() {
            for Envelope { client, body, .. } in trace.honest(&self.liars) {
                named.entry((*client, place, *body)).or_insert_with(|| {
                    vectors.push(Vector { client: *client, place });
                    unknown += 1;
                    unknown - 1
                });
            }
        }
        let (pads, open) = (0..hidden.len(), hidden.len()..unknown);
        let mut sums = Vec::new();
        let mut sources = Vec::new();
        let mut crowds = Vec::new();
        let mut known = |source, place, pads: &[(PeerId, Pad)], vector: Option<usize>| {
            let pads = pads.iter().filter_map(|(_, pad)| hidden.get(pad).copied());
            sums.push(Sum::of(pads.chain(vector).chain([open.end + sources.len()])));
            sources.push((source, place));
        };
        for (place, trace) in traces() {
            for Envelope { client, body, pads } in trace.honest(&self.liars) {
                let vector = named.get(&(*client, place, *body)).copied();
                known(Source::Envelope(*client), place, pads, vector);
            }
            for Partial { aggregate, pads, .. } in trace.partials.iter().filter(|made| made.server == *server)
            {
                known(Source::Partial(*server, *aggregate), place, pads, None);
            }
            // Of several vectors of a client the first one is meant.
            let first = |client: PeerId| {
                let envelope = trace.envelopes.iter().find(|envelope| envelope.client == client)?;
                named.get(&(client, place, envelope.body)).copied()
            };
            let crowd = self.crowd(trace, server);
            let crowd: Option<Vec<usize>> = crowd.and_then(|crowd| crowd.into_iter().map(first).collect());
            crowds.extend(crowd.map(Sum::of));
        }
        Equations { sums, sources, vectors, pads, open, crowds }
    }

    /// The pads between a server and honest clients, numbered from zero: what the others do not know, unless one of them
    /// has made the same bytes.
    fn hidden<'a>(
        &self,
        server: &PeerId,
        traces: impl Iterator<Item = &'a Trace> + Clone,
    ) -> BTreeMap<&'a Pad, usize> {
        let liar = |peer: &PeerId| self.liars.contains(peer);
        let mut hidden: BTreeSet<&Pad> = BTreeSet::new();
        for trace in traces.clone() {
            let envelopes = trace.honest(&self.liars).flat_map(|envelope| &envelope.pads);
            hidden.extend(envelopes.filter(|(with, _)| with == server).map(|(_, pad)| pad));
            let partials = trace.partials.iter().filter(|partial| partial.server == *server);
            let pads = partials.flat_map(|partial| &partial.pads);
            hidden.extend(pads.filter(|(with, _)| !liar(with)).map(|(_, pad)| pad));
        }
        for trace in traces {
            let envelopes = trace.envelopes.iter().filter(|envelope| liar(&envelope.client));
            let partials = trace.partials.iter().filter(|partial| partial.server != *server);
            let own = envelopes.flat_map(|envelope| &envelope.pads);
            for (_, pad) in own.chain(partials.flat_map(|partial| &partial.pads)) {
                hidden.remove(pad);
            }
        }
        hidden.into_iter().enumerate().map(|(number, pad)| (pad, number)).collect()
    }

    fn called(&self, peer: &PeerId) -> String {
        self.names.get(peer).cloned().unwrap_or_else(|| peer.short())
    }

    fn shown_vectors(&self, equations: &Equations, sum: &Sum) -> String {
        let vectors = sum.within(equations.open.clone()).map(|at| equations.vector(at));
        let shown = vectors.map(|Vector { client, place }| {
            format!("the vector of {} in {}", self.called(&client), self.headers[&place].round)
        });
        shown.collect::<Vec<_>>().join(" XOR ")
    }

    /// The combination, for whoever wants to do the sum.
    fn shown_sources(&self, equations: &Equations, sum: &Sum) -> String {
        let end = equations.open.end;
        let sources = sum.within(end..end + equations.sources.len()).map(|at| equations.sources[at - end]);
        let shown = sources.map(|(source, place)| {
            let Trace { round, digest, .. } = &self.headers[&place];
            let digest = digest.short();
            match source {
                Source::Envelope(client) => {
                    format!("the envelope of {} in {round} ({digest})", self.called(&client))
                }
                Source::Partial(server, aggregate) => format!(
                    "the partial of {} in {round} ({digest}) for aggregate {}",
                    self.called(&server),
                    aggregate.short()
                ),
            }
        });
        shown.collect::<Vec<_>>().join(" XOR ")
    }
}

impl Trace {
    fn pads(&self) -> impl Iterator<Item = &(PeerId, Pad)> {
        let envelopes = self.envelopes.iter().flat_map(|envelope| &envelope.pads);
        envelopes.chain(self.partials.iter().flat_map(|partial| &partial.pads))
    }

    fn honest<'a, 'b>(
        &'a self,
        liars: &'b BTreeSet<PeerId>,
    ) -> impl Iterator<Item = &'a Envelope> + use<'a, 'b> {
        self.envelopes.iter().filter(|envelope| !liars.contains(&envelope.client))
    }
}

impl Equations {
    fn vector(&self, unknown: usize) -> Vector {
        self.vectors[unknown - self.open.start]
    }
}
