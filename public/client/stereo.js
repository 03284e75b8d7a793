/** Opus in stereo (RFC 7587), which a browser's answer does not ask for. */

/** Adds Opus stereo parameters (RFC 7587) to the answer: for the mids `sent`, and for sections that the offer sends in stereo. */
export function withStereo(answer, offer, sent) {
  const sections = (sdp) => sdp.split(/^(?=m=)/m);
  const midOf = (section) => /^a=mid:(\S+)/m.exec(section)?.[1];
  const coming = sections(offer).filter((section) => section.includes('sprop-stereo=1')).map(midOf);
  const parameters = (mid) => (sent.includes(mid) ? ';stereo=1;sprop-stereo=1' : coming.includes(mid) ? ';stereo=1' : '');
  return sections(answer)
    .map((section) => section.replace(/^a=fmtp:\d+ .*useinbandfec=1.*/m, (line) => line + parameters(midOf(section))))
    .join('');
}
