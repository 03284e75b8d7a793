/** The connection panel: an overall verdict, then a small graph for each stream. It samples only while it is open. */

import { button, element, icon, put, setIcon } from '../base/dom.js';
import { copyText } from '../ui/here.js';
import { isBad, Meter, verdict } from './measure.js';
import { page } from '../app/page.js';
import { has, number, t, texts } from '../i18n/texts.js';
import { toast } from '../ui/toasts.js';

const PERIOD_MS = 1_000;
const GRAPH = { width: 296, height: 26 };
const SVG = 'http://www.w3.org/2000/svg';
const SOURCES = ['microphone', 'camera', 'screen', 'screen-audio'];

let meter = new Meter();
let timer = 0;
let latest = null;
const rows = new Map(); // stream id → row

const verdictIcon = icon('check');
const verdictTitle = element('b');
const verdictText = element('p', 'num');
const groups = { sent: group('stats.send'), received: group('stats.receive') };

export function panel() {
  const box = element('div', 'verdict');
  const words = element('div');
  const title = element('p');
  title.setAttribute('role', 'status');
  title.append(verdictTitle);
  words.append(title, verdictText);
  box.append(verdictIcon, words);
  const copy = button('btn', { label: t('stats.copy'), name: 'copy' }, copyReport);
  copy.lastElementChild.dataset.t = 'stats.copy';
  return { body: [box, groups.sent.box, groups.received.box], foot: copy, shown: start, hidden: stop };
}

function group(title) {
  const box = element('section');
  const heading = element('h3', 'group', t(title));
  heading.dataset.t = title;
  const list = element('ul');
  box.append(heading, list);
  return { box, list };
}

function start() {
  stop();
  show();
  timer = setInterval(show, PERIOD_MS);
}

function stop() {
  clearInterval(timer);
  timer = 0;
}

async function show() {
  const { pc } = page.room;
  const now = pc ? await meter.read(pc) : { rtt_ms: null, way: null, streams: [] };
  now.streams = now.streams.map((stream) => ({ ...stream, ...ownerOf(stream) })).filter(({ title }) => title);
  latest = now;
  showVerdict(now);
  for (const [id, row] of rows) {
    if (now.streams.some((one) => one.id === id)) continue;
    row.box.remove();
    rows.delete(id);
  }
  for (const stream of now.streams) showStream(stream);
  for (const { box, list } of Object.values(groups)) box.hidden = !list.childElementCount;
}

/** The owner of a stream: { title, muted, peer }; an empty title for a transceiver that carries nothing now. */
function ownerOf({ sent, track }) {
  const { room, devices } = page;
  if (sent) {
    const source = SOURCES.find((one) => track && devices.track(one) === track);
    return { title: source ? t(`stats.${source}`) : '', muted: Boolean(source) && devices.status(source) === 'off', peer: room.self };
  }
  for (const { peer, name, tracks } of room.participants.values()) {
    for (const [source, { muted }] of tracks) {
      if (room.media(peer, source) !== track) continue;
      const title = { camera: name, microphone: t('stats.sound_of', { name }), screen: t('tile.screen', { name }) }[source] ?? t('tile.source', { name, source });
      return { title, muted, peer };
    }
  }
  return { title: '', muted: false, peer: null };
}

function showVerdict(now) {
  const { quality, self } = page.room;
  const found = verdict(now, quality ?? {}, self);
  const bad = ['none', 'poor', 'fair'].includes(found);
  setIcon(verdictIcon, bad ? 'warning' : 'check');
  verdictIcon.classList.toggle('is-bad', bad);
  put(verdictTitle, t(`stats.verdict.${found}`));
  const worst = Math.max(0, ...now.streams.map(({ loss }) => loss ?? 0));
  const facts = found === 'none' ? t('stats.no_media') : t(worst ? 'stats.facts' : 'stats.facts_lossless', { rtt: ms(now.rtt_ms), loss: percent(worst) });
  put(verdictText, [cause(quality?.cause), facts, now.way && t(`stats.way.${now.way}`)].filter(Boolean).join(' '));
}

/** The text for the cause of bad quality in the server's `quality` event, if there is one. */
function cause(found) {
  if (!found) return '';
  const key = `stats.cause.${found.kind}${found.peer === page.room.self ? '.self' : ''}`;
  const [unit, amount] = [found.unit, found.value];
  const value = unit === '%' ? percent(amount / 100) : unit === 'bps' ? bitrate(amount) : ms(amount);
  return has(key) ? t(key, { name: page.room.participants.get(found.peer)?.name ?? '', value }) : '';
}

function showStream(stream) {
  let row = rows.get(stream.id);
  if (!row) {
    row = makeRow();
    rows.set(stream.id, row);
    groups[stream.sent ? 'sent' : 'received'].list.append(row.box);
  }
  const why = reason(stream);
  row.box.classList.toggle('stream--bad', isBad(stream) || Boolean(why));
  put(row.title, stream.title);
  row.title.title = stream.title;
  put(row.rate, stream.muted && stream.bps < 1000 ? t('stats.off') : bitrate(stream.bps));
  put(row.what, why || format(stream));
  row.what.classList.toggle('stream__why', Boolean(why));
  put(row.loss, lost(stream));
  draw(row, stream.graph);
  put(row.layers, stream.layers.filter(({ rid }) => rid).map(layer).join(' · '));
  row.layers.hidden = !row.layers.textContent;
  put(row.detail, why ? format(stream) : '');
  row.detail.hidden = !why;
}

function makeRow() {
  const box = element('li', 'stream');
  const row = { box, title: element('b', 'cut'), rate: element('span', 'num'), what: element('span'), loss: element('span'), detail: element('p', 'stream__more num'), layers: element('p', 'stream__more num') };
  const [top, sub] = [element('p', 'stream__top'), element('p', 'stream__sub num')];
  top.append(row.title, row.rate);
  sub.append(row.what, row.loss);
  const svg = document.createElementNS(SVG, 'svg');
  for (const [name, value] of Object.entries({ class: 'spark', viewBox: `0 0 ${GRAPH.width} ${GRAPH.height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' })) svg.setAttribute(name, value);
  [row.fill, row.line] = ['spark__fill', 'spark__line'].map((name) => {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('class', name);
    svg.append(path);
    return path;
  });
  box.append(top, svg, sub, row.detail, row.layers);
  return row;
}

/** Draws the last minute, newest sample at the right, scaled to its highest bitrate. */
function draw({ line, fill }, graph) {
  const { width, height } = GRAPH;
  const top = Math.max(...graph, 1);
  const from = 60 - graph.length;
  const points = graph.map((bps, index) => `${(((from + index) / 59) * width).toFixed(1)} ${(height - 1 - (bps / top) * (height - 3)).toFixed(1)}`);
  line.setAttribute('d', `M${points.join('L')}`);
  fill.setAttribute('d', `M${((from / 59) * width).toFixed(1)} ${height}L${points.join('L')}L${width} ${height}z`);
}

/** What limits a stream, and on whose side; empty if nothing does. */
function reason(stream) {
  const score = page.room.quality?.peers[stream.peer];
  if (stream.sent) {
    const smaller = stream.limited && stream.height < stream.track.getSettings().height;
    return smaller ? t(`stats.limited.${stream.limited}`) : isBad(stream) ? t('stats.your_upload') : '';
  }
  if (isBad(stream)) return score !== undefined && score < 3 ? t('stats.their_side') : t('stats.your_side');
  return '';
}

function format({ kind, codec, channels, width, height, fps }) {
  if (kind === 'audio') return [codec === 'opus' ? 'Opus' : codec, t(channels === 2 ? 'stats.stereo' : 'stats.mono')].filter(Boolean).join(', ');
  if (!width) return codec ?? '';
  return [`${width}×${height}`, t('stats.fps', { fps: Math.round(fps) }), codec].filter(Boolean).join(', ');
}

const layer = ({ rid, width, height, bps }) => `${rid} ${width}×${height} ${bitrate(bps)}`;
const ms = (value) => number(Math.round(value), { style: 'unit', unit: 'millisecond' });
/** Rounded up, so that no loss is shown as none. */
const percent = (share) => number(Math.max(0, Math.ceil(share * 1000 - 1e-6)) / 1000, { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });
const lost = ({ loss }) => (loss === null ? '' : t('stats.lost', { loss: percent(loss) }));

function bitrate(bps) {
  if (bps >= 999_500) return number(bps / 1e6, { style: 'unit', unit: 'megabit-per-second', minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return number(Math.round(bps / 1e3), { style: 'unit', unit: 'kilobit-per-second' });
}

async function copyReport() {
  const lines = latest.streams.map((stream) => [stream.title, bitrate(stream.bps), format(stream), stream.layers.filter(({ rid }) => rid).map(layer).join(' · '), lost(stream), reason(stream)]);
  const report = [`${location.host} · ${new Date().toISOString()}`, navigator.userAgent, `${verdictTitle.textContent}. ${verdictText.textContent}`];
  report.push(...lines.map((line) => line.filter(Boolean).join(', ')));
  if (await copyText(report.join('\n'))) toast('copy', t('stats.copied'), { icon: 'check' });
  else toast('copy', t('stats.not_copied'), { icon: 'warning' });
}

page.on('call', () => (meter = new Meter()));
texts.addEventListener('change', () => timer && page.room?.pc && show());
