import 'uplot/dist/uPlot.min.css';
import './app.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { clock } from './state/clock.svelte';
import { alertCounts } from './state/counts.svelte';
import { live } from './state/live.svelte';
import { prefs } from './state/prefs.svelte';
import { time } from './state/time.svelte';
import { startRouter } from './state/url.svelte';

prefs.start();
clock.start();
startRouter();
time.start();
live.start();
alertCounts.start();
mount(App, { target: document.getElementById('app')! });
