# SPDX-License-Identifier: Apache-2.0
"""How the pages of a report look: bright or dark as the reader's system, on screens of any width.

Colours of charts are those of Okabe and Ito, which everybody tells apart; lines differ in their
dashes besides.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --part: #f4f5f7; --ink: #1b1e24; --faint: #596070; --rule: #d5d9e0;
  --link: #0b5cad; --best: #dff0e6;
  --estimate: #0072b2; --truth: #3a3f48; --start: #00805c; --end: #c44e00; --boundary: #c44e00;
  --uncertain: #f3d794; --lost: #c9ccd3; --lost-ink: #6b7280;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181d; --part: #1f2229; --ink: #e8eaee; --faint: #a3abb9; --rule: #3a3f4a;
    --link: #7cbcf5; --best: #17402c;
    --estimate: #56b4e9; --truth: #d4d8df; --start: #2fc49b; --end: #f0953f; --boundary: #f0953f;
    --uncertain: #5c4a17; --lost: #40444e; --lost-ink: #9aa1ae;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem; max-width: 1280px;
  background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
}
h1 { margin: .5rem 0 .25rem; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 {
  margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule);
  font-size: 1.25rem;
}
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 75ch; }
a { color: var(--link); }
.faint, .view figcaption, .unit { color: var(--faint); }
.subtitle { margin-top: 0; overflow-wrap: anywhere; }
.note {
  margin: .5rem 0; padding: .5rem .75rem; border-left: 4px solid var(--rule);
  background: var(--part);
}
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0;
}
.tile { padding: .6rem .75rem; border-radius: .5rem; background: var(--part); }
.tile dt { color: var(--faint); font-size: .875rem; }
.tile dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile .unit { font-size: .875rem; font-weight: 400; }
.tables { columns: 2 25rem; column-gap: 1.5rem; }
.tables > * { margin-bottom: 1.5rem; break-inside: avoid; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
  gap: 1.5rem 1rem; align-items: start; }
.charts > * { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.tables table { width: 100%; }
caption { padding: .25rem 0; text-align: left; font-weight: 600; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; }
th { font-weight: 500; }
thead th { vertical-align: bottom; color: var(--faint); font-size: .875rem; }
th:first-child, .text td, .text th, .left { text-align: left; }
td { white-space: nowrap; }
.comparison { font-size: .9375rem; }
.comparison tbody + tbody { border-top: 2px solid var(--rule); }
.comparison th[scope=row], .comparison thead th:first-child {
  position: sticky; left: 0; min-width: clamp(6.5rem, 30vw, 14rem); background: var(--page);
  text-align: left; overflow-wrap: break-word;
}
.comparison .sequence th {
  padding-top: .75rem; border: 0; font-weight: 600; text-align: left;
}
.comparison .sequence span { position: sticky; left: .3rem; }
.failure span {
  position: sticky; left: 8rem; display: inline-block; max-width: min(60vw, 40rem);
  text-align: left; white-space: normal;
}
.tables th[scope=row] { min-width: 7.5rem; position: sticky; left: 0; background: var(--page); }
.best { background: var(--best); font-weight: 700; }
.paper { color: var(--faint); font-style: italic; }
.mean td { font-weight: 500; }
.failure { text-align: left; }
figure { margin: 0; }
figcaption { margin-bottom: .35rem; font-size: .9375rem; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.grid { stroke: var(--rule); fill: none; }
.axis { stroke: var(--faint); fill: none; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.estimate { stroke: var(--estimate); }
.truth { stroke: var(--truth); stroke-dasharray: 2 5; stroke-width: 2.5; }
.start { fill: var(--page); stroke: var(--start); stroke-width: 3; }
.end { fill: var(--end); stroke: var(--page); }
.cross { fill: none; stroke: var(--boundary); stroke-width: 1.8; }
.boundary { fill: none; stroke: var(--boundary); stroke-width: 2; }
.uncertain { fill: var(--uncertain); }
.lost { fill: url(#hatch); stroke: none; }
.hatch { position: absolute; }
.hatch rect { fill: var(--lost); }
.hatch path { stroke: var(--lost-ink); stroke-width: 2; }
.views { display: grid; gap: 1.25rem; }
.view { display: grid; grid-template-columns: repeat(4, minmax(0, 20rem)); gap: .5rem; }
.view > p { grid-column: 1 / -1; margin: 0; font-weight: 500; }
@media (max-width: 44rem) {
  .tables, .comparison { font-size: .875rem; }
  th, td { padding: .3rem; }
  .tables th[scope=row] { min-width: 7rem; }
  .tables th:first-child, .tables td:first-child { padding-left: 0; }
}
@media (max-width: 44rem) { .view { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
img { display: block; width: 100%; height: auto; border-radius: .25rem; }
.view figcaption { margin: .2rem 0 0; font-size: .875rem; }
.keys { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0 0 1rem; font-size: .875rem; }
.key { display: flex; flex-wrap: wrap; gap: .25rem .5rem; align-items: center; }
.key img { width: 9rem; height: .9rem; }
.chip { width: 1.4rem; height: .9rem; border-radius: .2rem; background: rgb(128 128 128); }
.map { max-width: 60rem; }
.why {
  display: inline-block; min-width: 1.15rem; border: 1px solid var(--rule); border-radius: 50%;
  color: var(--faint); font-size: .75rem; line-height: 1.1rem; text-align: center;
  text-decoration: none;
}
.why:hover, .why:focus { color: var(--page); background: var(--link); }
details { margin: .75rem 0; padding: .5rem .75rem; background: var(--part); border-radius: .5rem; }
summary { cursor: pointer; font-weight: 500; }
details table { font-size: .875rem; }
details td { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
pre { overflow-x: auto; font-size: .8125rem; }
.glossary dt { margin-top: .75rem; font-weight: 600; scroll-margin-top: 1rem; }
.glossary dt:target { background: var(--best); }
.glossary dd { margin: 0; max-width: 75ch; }
@media print { body { max-width: none; } details > * { display: block; } }
"""

# The pattern of LOST stretches, which charts refer to.
HATCH = """<svg class="hatch" width="0" height="0" aria-hidden="true"><defs>
<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" \
patternTransform="rotate(45)"><rect width="7" height="7"/><path d="M0 0V7"/></pattern>
</defs></svg>"""
