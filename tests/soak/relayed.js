// Before a page of a call loads: its connection is `pc`, and its media has no way but the relay, even where the server
// has a port a peer (`relayed` is told of each) and would itself try the page's addresses.
const toRelay = async (text) => {
  for (const [, port] of text.matchAll(/candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+)/g)) await window.relayed(Number(port));
  return text.replaceAll(/(candidate:\S+ 1 udp \d+) 127\.0\.0\.1 /g, '$1 127.0.0.2 ');
};
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...settings) {
    super(...settings);
    window.pc = this;
  }
  async setRemoteDescription({ type, sdp }) {
    return super.setRemoteDescription({ type, sdp: await toRelay(sdp) });
  }
  async addIceCandidate(candidate) {
    return super.addIceCandidate({ ...candidate, candidate: await toRelay(candidate.candidate) });
  }
};
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (text) {
  if (JSON.parse(text).event !== 'candidate') send.call(this, text.replaceAll(/a=candidate:.*?\\\\r\\\\n/g, ''));
};
