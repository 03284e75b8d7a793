/** Links in what people write. No DOM. */

const LINK = /\bhttps?:\/\/[^\s<>"'`«»“”„‘’]+/giu;
const TAIL = /[.,;:!?…*_~]+$/u;
const BRACKETS = { ')': '(', ']': '[', '}': '{' };

/** Text as parts in order: { text } or { text, href }. Only http and https become links; punctuation after one is no part of it. */
export function parts(text) {
  const found = [];
  let done = 0;
  for (const { 0: match, index } of text.matchAll(LINK)) {
    const shown = trimmed(match);
    const href = address(shown);
    if (!href) continue;
    if (index > done) found.push({ text: text.slice(done, index) });
    found.push({ text: shown, href });
    done = index + shown.length;
  }
  if (done < text.length) found.push({ text: text.slice(done) });
  return found;
}

/** Without the full stop of the sentence around it, or the bracket it stands in. */
function trimmed(link) {
  for (;;) {
    const shorter = link.replace(TAIL, '');
    const opening = BRACKETS[shorter.at(-1)];
    const closes = opening && shorter.split(opening).length < shorter.split(shorter.at(-1)).length;
    if (!closes) return shorter;
    link = shorter.slice(0, -1);
  }
}

function address(text) {
  try {
    const { href, protocol, hostname } = new URL(text);
    return ['http:', 'https:'].includes(protocol) && hostname ? href : null;
  } catch {
    return null;
  }
}
