/** The page of `sfu doctor --phone`: shows how each way of media goes, from this device and as the server sees it. */

import { $, element, put } from '../base/dom.js';
import { SERVER } from '../base/server.js';
import { fill, more, t } from '../i18n/texts.js';
import { LEGS, test } from './legs.js';

const MARKS = { running: '', ok: '✓', failed: '✕', off: '–' };
const rows = new Map();
const states = new Map();
let server = {};

function row(name) {
  const made = element('li', 'leg');
  const parts = { row: made, mark: element('span', 'leg__mark'), name: element('h2', 'leg__name', t(`phone.leg.${name}`)), text: element('p', 'leg__text') };
  parts.mark.setAttribute('aria-hidden', 'true');
  made.append(parts.mark, parts.name, parts.text);
  rows.set(name, parts);
  return made;
}

function show(name, state, text) {
  const parts = rows.get(name);
  states.set(name, state);
  parts.row.className = `leg is-${state}`;
  put(parts.mark, MARKS[state]);
  put(parts.text, text);
}

function verdict({ leg, cause, ms }) {
  const values = { leg: t(`phone.leg.${leg}`), addresses: server[leg], ms };
  show(leg, cause === 'ok' ? 'ok' : 'failed', t(`phone.cause.${cause}`, values));
}

function conclude() {
  const works = (name) => states.get(name) === 'ok';
  const found = works('udp') ? 'ok' : works('tcp') || works('relay') ? 'fallback' : 'failed';
  $('verdict').className = `probe__verdict is-${found}`;
  put($('verdict'), t(`phone.all.${found}`));
  put($('more'), [window.isSecureContext ? '' : t('phone.insecure'), t('phone.close')].join(' ').trim());
}

function lost(code) {
  const began = states.get('signalling') === 'ok';
  show('signalling', 'failed', t(code === 'probe_gone' ? 'phone.gone' : began ? 'phone.cut' : 'phone.no_signalling'));
  for (const name of LEGS) if (states.get(name) === 'running') show(name, 'off', t('phone.untested'));
  $('verdict').className = 'probe__verdict is-failed';
  put($('verdict'), t(code === 'probe_gone' ? 'phone.all.gone' : 'phone.all.failed'));
}

function run() {
  const url = new URL('ws', SERVER);
  url.protocol = url.protocol.replace('http', 'ws');
  const secret = location.hash.slice(1); // after the #, so that no log of a proxy has it
  if (!/^[\w-]{16,64}$/.test(secret)) return lost('probe_gone');
  test(url, secret, { server: begin, verdict, done: conclude, closed: lost });
}

function begin(has) {
  server = has;
  show('signalling', 'ok', t('phone.signalling_works'));
  for (const name of LEGS) if (!has[name].length) show(name, 'off', t('phone.off'));
}

await more('phone');
fill(document);
document.title = t('phone.title');
put($('about'), t('phone.about', { host: location.host }));
put($('verdict'), t('phone.running'));
$('legs').append(...['signalling', ...LEGS].map(row));
for (const name of rows.keys()) show(name, 'running', t('phone.testing'));
if (window.RTCPeerConnection) run();
else lost('');
