/** What the page knows and TypeScript's own declarations do not. */

/** Elements of index.html whose kind matters, by id. */
interface PageElements {
  'name-input': HTMLInputElement;
  'preview-video': HTMLVideoElement;
  'room-input': HTMLInputElement;
}

interface Document {
  /** Only in Chromium. */
  featurePolicy?: { allowsFeature(name: string): boolean };
  getElementById<Id extends keyof PageElements>(id: Id): PageElements[Id];
}

/** Whatever is no more than an EventTarget is the page's own, and tells with CustomEvents. */
interface EventTarget {
  addEventListener(type: string, then: (event: CustomEvent) => void, options?: boolean | AddEventListenerOptions): void;
}

interface Navigator {
  /** Only in some browsers. */
  connection?: EventTarget;
}

interface Performance {
  getEntriesByType(type: 'navigation'): PerformanceNavigationTiming[];
}

interface Window {
  /** The call's connection, for the browser's console. */
  room: import('../../public/protocol.js').Room;
}
