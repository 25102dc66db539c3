// What a waiting cell loads when it rehearses loading.
'use strict';

exports.main = async (event) => event;
