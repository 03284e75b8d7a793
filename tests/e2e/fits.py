"""What of a page is outside its window, or cut off."""

from __future__ import annotations

OUTSIDE_JS = """() => {
    const view = document.querySelector('main:not([hidden])');
    const scrolls = view.id !== 'call-view'; // downwards, which a form may
    const seen = [...view.querySelectorAll('button, input, select, video, h1, h2, p, .tile, .cap, .bar, .stage')]
        .filter((one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }));
    const outside = (one) => {
        const { left, right, top, bottom, width } = one.getBoundingClientRect();
        return width && (left < -1 || right > innerWidth + 1 || top < -1 || (!scrolls && bottom > innerHeight + 1));
    };
    const cut = (one) => one.matches('.btn') && one.scrollWidth > one.clientWidth + 1;
    const name = (one) => `${one.tagName} ${one.id || one.className} ${one.textContent.trim().slice(0, 40)}`;
    const wide = document.documentElement.scrollWidth > innerWidth ? ['the page'] : [];
    const found = [...seen.filter((one) => outside(one) || cut(one)).map(name), ...wide];
    return { window: [innerWidth, innerHeight], few: seen.length < 6, found };
}"""
