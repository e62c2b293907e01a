package storetest

var filterClaims = []func(*suite){}
