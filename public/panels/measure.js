/**
 * Statistics of each stream over the last minute, from getStats() (W3C webrtc-stats). No page elements.
 *
 * A stream: { id, sent, kind, track, codec, channels, layers: [{ rid, width, height, fps, bps }], width, height, fps, bps,
 * graph: [bps, …], loss, jitter_ms, limited }. `loss`: share of packets lost, 0 to 1, or null before any were counted; `track`:
 * the MediaStreamTrack sent or received; `limited`: why the encoder reduces quality ('cpu', 'bandwidth'), or null.
 */

const KEPT = 60; // samples, one a second

export class Meter {
  #past = new Map(); // stream id → samples { at, bytes, packets, lost }
  #rids = new Map(); // outbound report id → { at, bytes }

  /**
   * Takes one sample: { rtt_ms, way, streams }, sent streams first. `way` is 'udp', 'tcp' or 'relay' (TURN). Both are null while
   * there is no media path.
   */
  async read(pc) {
    const reports = await pc.getStats();
    const all = [...reports.values()];
    const tracks = new Map(pc.getTransceivers().map(({ mid, sender, receiver }) => [mid, { sent: sender.track, received: receiver.track }]));
    const streams = [...this.#outbound(all, reports, tracks), ...this.#inbound(all, reports, tracks)];
    for (const id of this.#past.keys()) if (!streams.some((one) => one.id === id)) this.#past.delete(id);
    return { ...path(all, reports), streams };
  }

  #inbound(all, reports, tracks) {
    return all
      .filter(({ type }) => type === 'inbound-rtp')
      .map((one) => ({
        ...this.#rates(`in-${one.mid ?? one.ssrc}`, one.timestamp, one.bytesReceived, one.packetsReceived, Math.max(0, one.packetsLost ?? 0)),
        ...described(one, reports),
        sent: false,
        track: tracks.get(one.mid)?.received ?? null,
        layers: [],
        jitter_ms: one.jitter === undefined ? null : one.jitter * 1000,
        limited: null,
      }));
  }

  /** The sent streams; all simulcast layers of a track form one stream. */
  #outbound(all, reports, tracks) {
    const sent = all.filter(({ type }) => type === 'outbound-rtp');
    return [...new Set(sent.map(({ mid }) => mid))].map((mid) => {
      const parts = sent.filter((one) => one.mid === mid);
      const layers = parts.map((one) => this.#layer(one)).filter(({ bps }) => bps > 0);
      const best = parts.reduce((a, b) => ((b.frameWidth ?? 0) > (a.frameWidth ?? 0) ? b : a));
      const sum = (name, of = parts) => of.reduce((total, one) => total + Math.max(0, one[name] ?? 0), 0);
      const heard = parts.map((one) => reports.get(one.remoteId)).filter(Boolean); // remote-inbound-rtp: the server's receiver reports
      return {
        ...this.#rates(`out-${mid}`, best.timestamp, sum('bytesSent'), sum('packetsSent'), sum('packetsLost', heard)),
        ...described(best, reports),
        sent: true,
        track: tracks.get(mid)?.sent ?? null,
        layers: layers.sort((a, b) => (a.width ?? 0) - (b.width ?? 0)),
        jitter_ms: null,
        limited: parts.map((one) => one.qualityLimitationReason).find((why) => why === 'cpu' || why === 'bandwidth') ?? null,
      };
    });
  }

  #layer(one) {
    const before = this.#rids.get(one.id);
    this.#rids.set(one.id, { at: one.timestamp, bytes: one.bytesSent });
    return { rid: one.rid ?? '', width: one.frameWidth, height: one.frameHeight, fps: one.framesPerSecond ?? 0, bps: rate(before, one.timestamp, one.bytesSent) };
  }

  #rates(id, at, bytes, packets, lost) {
    const past = this.#past.get(id) ?? [];
    if (past.at(-1)?.bytes > bytes) past.length = 0; // counters restarted: the transceiver carries another track
    const bps = rate(past.at(-1), at, bytes);
    past.push({ at, bytes, packets, lost, bps });
    if (past.length > KEPT) past.shift();
    this.#past.set(id, past);
    const missing = Math.max(0, lost - past[0].lost);
    const counted = packets - past[0].packets + missing;
    return { id, bps, graph: past.map((one) => one.bps), loss: counted > 0 ? missing / counted : null };
  }
}

const rate = (before, at, bytes) => (before && at > before.at ? Math.max(0, ((bytes - before.bytes) * 8000) / (at - before.at)) : 0);

function described(one, reports) {
  const codec = reports.get(one.codecId);
  return {
    kind: one.kind,
    codec: codec?.mimeType.split('/')[1] ?? null,
    channels: /stereo=1/.test(codec?.sdpFmtpLine ?? '') ? 2 : 1,
    width: one.frameWidth ?? null,
    height: one.frameHeight ?? null,
    fps: one.framesPerSecond ?? 0,
  };
}

function path(all, reports) {
  const transport = all.find(({ type }) => type === 'transport');
  const pair = reports.get(transport?.selectedCandidatePairId) ?? all.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
  if (pair?.currentRoundTripTime === undefined) return { rtt_ms: null, way: null };
  const local = reports.get(pair.localCandidateId);
  return { rtt_ms: pair.currentRoundTripTime * 1000, way: local?.candidateType === 'relay' ? 'relay' : local?.protocol ?? null };
}

const BAD = { loss: 0.05, rtt_ms: 400 };
const FAIR = { loss: 0.02, rtt_ms: 200 };
const [POOR, GOOD] = [3, 3.7]; // thresholds for the server's scores

export const isBad = ({ loss }) => loss !== null && loss > BAD.loss;

/**
 * The overall verdict: 'none' (no media path), 'poor', 'fair', 'weak' (good except for one received stream), 'recovering' (was
 * worse, good now) or 'good'. The second argument is the last `quality` event, if any. Its E-model scores, 4.4 at best and poor
 * below 3, fall at once and rise slowly; so a low score counts as a current problem only with measured figures or a cause.
 */
export function verdict({ rtt_ms, streams }, { peers = {}, cause = null } = {}, self = null) {
  if (rtt_ms === null) return 'none';
  const score = peers[self] ?? 5;
  const blamed = cause !== null && cause.peer === self;
  const losses = (one) => streams.filter((stream) => stream.loss !== null && stream.loss > one.loss);
  const sending = (of) => of.some(({ sent }) => sent);
  const [bad, lossy] = [losses(BAD), losses(FAIR)];
  if (rtt_ms > BAD.rtt_ms || sending(bad) || bad.length > 1) return 'poor';
  const fair = rtt_ms > FAIR.rtt_ms || sending(lossy);
  if (fair || blamed) return score < POOR ? 'poor' : 'fair';
  if (lossy.length) return 'weak';
  return score < GOOD ? 'recovering' : 'good';
}
