"""What of a page is outside its window, cut off, or covers something else."""

from __future__ import annotations

OUTSIDE_JS = """() => {
    const view = document.querySelector('dialog[open]') ?? document.querySelector('main:not([hidden])');
    const inView = (one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    const of = (selector) => [...view.querySelectorAll(selector)].filter(inView);
    const name = (one) => `${one.tagName} ${one.id || one.className} ${one.textContent.trim().slice(0, 40)}`;
    const found = document.documentElement.scrollWidth > innerWidth ? ['the page is too wide'] : [];
    const report = (fault, one, more = '') => found.push(`${fault}: ${name(one)}${more}`);

    const scrolls = view.id !== 'call-view'; // downwards, which a form and a dialog may
    const controls = of('button, input:not([type=file]), select, textarea, a[href], [role=menuitem]');
    const shown = [...controls, ...of('video, h1, h2, p, .tile, .cap, .key__label, .bar, .stage, .join')];
    for (const one of shown) {
        if (one.matches('.unseen')) continue;
        const { left, right, top, bottom, width } = one.getBoundingClientRect();
        const moves = scrolls || one.closest('.panel__body, .uploads');
        const beyond = !moves && (top < -1 || bottom > innerHeight + 1);
        if (width && (left < -1 || right > innerWidth + 1 || beyond)) report('outside', one);
        const whole = !one.matches('.btn, .key__label, .seg button') || one.scrollWidth <= one.clientWidth + 1;
        if (!whole) report('cut off', one);
    }
    const join = document.getElementById('join-button'); // wherever the form is scrolled to
    if (inView(join) && join.getBoundingClientRect().bottom > innerHeight + 1) report('below the fold', join);

    const visible = (one) => { // the part of its box that no scrolling or clipping ancestor hides
        let { left, right, top, bottom } = one.getBoundingClientRect();
        for (let box = one.parentElement; box; box = box.parentElement) {
            if (getComputedStyle(box).overflowY === 'visible') continue;
            const clip = box.getBoundingClientRect();
            [left, right] = [Math.max(left, clip.left), Math.min(right, clip.right)];
            [top, bottom] = [Math.max(top, clip.top), Math.min(bottom, clip.bottom)];
        }
        return { left, right, top, bottom };
    };
    const sticks = (one) => one.closest('.side .stack'); // over the form, which scrolls
    const floats = (one) => one.closest('.toasts, .banner');
    for (const one of controls) { // each can be pressed on each of its sides
        one.scrollIntoView({ block: 'center' });
        const { left, right, top, bottom } = one.getBoundingClientRect();
        const [x, y] = [(left + right) / 2, (top + bottom) / 2];
        for (const [px, py] of [[x, y], [left + 2, y], [right - 2, y], [x, top + 2], [x, bottom - 2]]) {
            const hit = document.elementFromPoint(px, py);
            if (one.contains(hit) || hit?.contains(one) && hit !== view || hit?.closest('.tools')) continue;
            if (hit && floats(hit) && !floats(one) && !one.closest('.bar, .panel')) continue; // it goes by itself
            report('covered', one, ` by ${hit ? name(hit) : 'nothing'}`);
            break;
        }
    }
    view.scrollTo(0, 0);
    scrollTo(0, 0);
    const words = of('p, h1, h2, h3, label, .btn, .puck, .input, .select, .key, .faces').filter(
        (one) => one.getBoundingClientRect().height && !one.closest('.tile, .unseen') && !floats(one) && !sticks(one));
    const boxes = new Map(words.map((one) => [one, visible(one)]));
    const apart = (one, other) => {
        const [a, b] = [boxes.get(one), boxes.get(other)];
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        return Math.min(across, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)) <= 1;
    };
    words.forEach((one, index) => {
        for (const other of words.slice(index + 1)) {
            const nested = one.contains(other) || other.contains(one);
            if (!nested && !apart(one, other)) report('overlap', one, ` and ${name(other)}`);
        }
    });
    return { window: [innerWidth, innerHeight], few: shown.length < 6, found };
}"""
