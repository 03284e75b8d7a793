/** The server's address: that of the page's files. A proxy may serve them below a path, such as /meet/. */
export const SERVER = new URL('..', import.meta.url);
